"""Groups as a stream: their names and their table.

Source: Mixpanel's Query API (`POST {query}/engage` with `data_group_id`).
"""

from mixpanel_assets.storage import instants
from mixpanel_assets.storage.columns import Column
from mixpanel_assets.streams.groups.fetch import fetch_page
from mixpanel_assets.streams.groups.query import GroupsQuery
from mixpanel_assets.streams.snapshot.stream import SnapshotStream

GROUP_PAGES = SnapshotStream(
    name="groups",
    part=Column(
        "data_group_id", "VARCHAR", "The number that Mixpanel has for the kind of group, as text.", nullable=False
    ),
    key=Column("group_id", "VARCHAR", "The group's id in Mixpanel, one row each within its kind.", nullable=False),
    content=Column("properties", "JSON", "All properties of the group, exactly as Mixpanel serves them."),
    columns=(
        Column(
            "group_key",
            "VARCHAR",
            "What the settings call the kind of group; its data_group_id where none has named it yet.",
            nullable=False,
            value=(
                "list_extract($group_names::varchar[], "
                "list_position($group_numbers::varchar[], staged.data_group_id)::bigint)"
            ),
        ),
        Column(
            "last_seen",
            "TIMESTAMP",
            "When Mixpanel last updated the group, UTC; NULL where it does not say.",
            value=instants.of_json("properties::json", """'$."$last_seen"'"""),
        ),
    ),
    query=GroupsQuery,
    fetch_page=fetch_page,
    missing_table="missing_groups",
    guards_parts=True,
    asks_first_page=False,
)
