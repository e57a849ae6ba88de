"""Annotations as a stream: their names, their table, and the list as it comes.

Source: Mixpanel's App API (`GET {app}/projects/{id}/annotations`).
"""

from mixpanel_assets.client.apis import APP
from mixpanel_assets.client.client import MixpanelClient
from mixpanel_assets.client.http import Request
from mixpanel_assets.storage.columns import Column
from mixpanel_assets.streams.annotations.query import AnnotationsQuery
from mixpanel_assets.streams.snapshot.list_page import fetch_list, keyed_by
from mixpanel_assets.streams.snapshot.stream import SnapshotStream


def _request(client: MixpanelClient, query: AnnotationsQuery) -> Request:
    url = f"{client.project.app_url}/projects/{client.project.project_id}/annotations"
    return Request(APP, "GET", url, what="page 0", params=query.params(), brings="annotations")


ANNOTATION_LIST = SnapshotStream(
    name="annotations",
    key=Column("annotation_id", "VARCHAR", "The annotation's id.", nullable=False),
    content=Column("annotation", "JSON", "The annotation, exactly as Mixpanel serves it; its author is in it."),
    columns=(
        Column(
            "date",
            "TIMESTAMP",
            "The moment that it is a note on, where the project counts its days; NULL where it is unreadable.",
            value="try_cast(annotation::json ->> '$.date' as timestamp)",
        ),
        Column("description", "VARCHAR", "What it says.", value="annotation::json ->> '$.description'"),
        Column(
            "tags",
            "VARCHAR[]",
            "Names of its tags.",
            value="coalesce((annotation::json ->> '$.tags[*].name')::varchar[], [])",
        ),
    ),
    query=AnnotationsQuery,
    fetch_page=fetch_list(_request, keyed_by("id"), "results"),
    missing_table="missing_annotations",
    is_counted=False,
)
