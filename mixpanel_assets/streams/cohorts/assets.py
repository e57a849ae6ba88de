"""`mixpanel/cohorts`, as a stream."""

from mixpanel_assets.pools import ENGAGE_POOL
from mixpanel_assets.streams.cohorts.stream import COHORT_LIST
from mixpanel_assets.streams.snapshot.assets import as_stream
from mixpanel_assets.streams.snapshot.settings import ListConfig

COHORTS = as_stream(
    COHORT_LIST,
    ListConfig,
    pool=ENGAGE_POOL,
    singular="cohort",
    description=(
        "One row per cohort of the Mixpanel project, with its name and size, as of the last sync: one request, counted "
        "against the hour. Cohorts deleted in Mixpanel go."
    ),
)
