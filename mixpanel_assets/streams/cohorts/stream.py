"""Cohorts as a stream: their names, their table, and the list as it comes.

Source: Mixpanel's Query API (`POST {query}/cohorts/list`).
"""

from mixpanel_assets.client.apis import QUERIES
from mixpanel_assets.client.client import MixpanelClient
from mixpanel_assets.client.http import Request
from mixpanel_assets.storage.columns import Column
from mixpanel_assets.streams.snapshot.list_page import ListQuery, fetch_list, keyed_by
from mixpanel_assets.streams.snapshot.stream import SnapshotStream


def _request(client: MixpanelClient, _: ListQuery) -> Request:
    return Request(
        QUERIES, "POST", f"{client.project.query_url}/cohorts/list", what="page 0", form={}, brings="cohorts"
    )


COHORT_LIST = SnapshotStream(
    name="cohorts",
    key=Column("cohort_id", "VARCHAR", "The cohort's id.", nullable=False),
    content=Column("cohort", "JSON", "The cohort, exactly as Mixpanel serves it; its members are not in it."),
    columns=(
        Column("name", "VARCHAR", "Its name.", value="cohort::json ->> '$.name'"),
        Column(
            "members",
            "BIGINT",
            "How many users it held when Mixpanel last counted.",
            value="try_cast(cohort::json ->> '$.count' as bigint)",
        ),
        Column("description", "VARCHAR", "What its owner says of it.", value="cohort::json ->> '$.description'"),
        Column(
            "created",
            "TIMESTAMP",
            "When it was made, UTC.",
            value="try_cast(cohort::json ->> '$.created' as timestamp)",
        ),
    ),
    query=ListQuery,
    fetch_page=fetch_list(_request, keyed_by("id")),
    missing_table="missing_cohorts",
)
