"""Profiles as a stream: their names and their table."""

from mixpanel_assets.storage import instants
from mixpanel_assets.storage.columns import Column
from mixpanel_assets.streams.profiles.fetch import fetch_page
from mixpanel_assets.streams.profiles.query import ProfileQuery
from mixpanel_assets.streams.snapshot.stream import SnapshotStream

PROFILE_PAGES = SnapshotStream(
    name="profiles",
    key=Column("distinct_id", "VARCHAR", "The user's id in Mixpanel, one row each.", nullable=False),
    content=Column("properties", "JSON", "All properties of the profile, exactly as Mixpanel serves them."),
    columns=(
        Column(
            "last_seen",
            "TIMESTAMP",
            "When Mixpanel last updated the profile, UTC; NULL where it does not say.",
            value=instants.of_json("properties::json", """'$."$last_seen"'"""),
        ),
    ),
    query=ProfileQuery,
    fetch_page=fetch_page,
    missing_table="missing_pages",
    syncs_table="profile_syncs",
    history_table="profile_history",
)
