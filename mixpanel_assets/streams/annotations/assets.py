"""`mixpanel/annotations`, as a stream."""

from pydantic import Field

from mixpanel_assets.pools import ENGAGE_POOL
from mixpanel_assets.settings import ENVIRONMENT, Variables
from mixpanel_assets.streams.annotations.query import AnnotationsQuery
from mixpanel_assets.streams.annotations.stream import ANNOTATION_LIST
from mixpanel_assets.streams.snapshot.assets import as_stream
from mixpanel_assets.streams.snapshot.settings import SnapshotConfig


class AnnotationsConfig(SnapshotConfig):
    """Settings of one sync of annotations."""

    from_date: str | None = Field(default=None, description="Only from this day on, included: 2026-01-31.")
    to_date: str | None = Field(default=None, description="Only up to this day, included.")

    def asked(self, variables: Variables = ENVIRONMENT) -> AnnotationsQuery:
        return AnnotationsQuery(from_date=self.from_date, to_date=self.to_date)


ANNOTATIONS = as_stream(
    ANNOTATION_LIST,
    AnnotationsConfig,
    pool=ENGAGE_POOL,
    singular="annotation",
    description=(
        "One row per note on the charts of the Mixpanel project, as of the last sync: one request, which counts "
        "nowhere. Annotations deleted in Mixpanel go."
    ),
)
