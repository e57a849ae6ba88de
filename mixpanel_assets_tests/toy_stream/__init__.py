"""A stream that is this folder alone: cohorts once more, under other names."""

from mixpanel_assets.client.apis import QUERIES
from mixpanel_assets.client.client import MixpanelClient
from mixpanel_assets.client.http import Request
from mixpanel_assets.pools import ENGAGE_POOL
from mixpanel_assets.storage.columns import Column
from mixpanel_assets.streams.snapshot.assets import as_stream
from mixpanel_assets.streams.snapshot.list_page import ListQuery, fetch_list, keyed_by
from mixpanel_assets.streams.snapshot.settings import ListConfig
from mixpanel_assets.streams.snapshot.stream import SnapshotStream


def _request(client: MixpanelClient, _: ListQuery) -> Request:
    return Request(QUERIES, "POST", f"{client.project.query_url}/cohorts/list", what="page 0", form={})


TOYS = as_stream(
    SnapshotStream(
        name="toys",
        key=Column("toy_id", "VARCHAR", "The id.", nullable=False),
        content=Column("toy", "JSON", "As served."),
        columns=(Column("name", "VARCHAR", "The name.", value="toy::json ->> '$.name'"),),
        query=ListQuery,
        fetch_page=fetch_list(_request, keyed_by("id")),
        missing_table="missing_toys",
    ),
    ListConfig,
    pool=ENGAGE_POOL,
    singular="toy",
    description="One row per toy.",
)
