"""Jobs: what people start by name besides materializing an asset."""

import dagster as dg

from mixpanel_assets import job_names
from mixpanel_assets.assets.events import EVENTS_KEY, EventsConfig, failed_event_ranges
from mixpanel_assets.assets.profiles import PROFILES_KEY, ProfilesConfig

sync_profiles = dg.define_asset_job(
    job_names.SYNC_PROFILES,
    selection=dg.AssetSelection.assets(PROFILES_KEY),
    description="Fetch all profiles; what hourly_profiles_schedule starts.",
)
sync_recent_events = dg.define_asset_job(
    job_names.SYNC_RECENT_EVENTS,
    selection=dg.AssetSelection.assets(EVENTS_KEY),
    description="Fetch days of events; what hourly_events_schedule starts, for the trailing days.",
)

retry_failed_profile_pages = dg.define_asset_job(
    job_names.RETRY_FAILED_PROFILE_PAGES,
    selection=dg.AssetSelection.assets(PROFILES_KEY),
    config=dg.RunConfig(ops={"mixpanel__profiles": ProfilesConfig(retry_failed_pages=True)}),
    description="Fetch only the profile pages that failed last time, and publish the complete snapshot.",
)

retry_failed_event_ranges = failed_event_ranges.to_job(
    job_names.RETRY_FAILED_EVENT_RANGES,
    config=dg.RunConfig(ops={"plan": EventsConfig(retry_failed_ranges=True)}),
    description="Fetch only the days of events that failed and have not come since. No partitions to choose.",
)

JOBS = (sync_profiles, sync_recent_events, retry_failed_profile_pages, retry_failed_event_ranges)
# What syncs an asset, besides a run of the asset itself.
PROFILE_JOBS = frozenset({sync_profiles.name, retry_failed_profile_pages.name})
EVENT_JOBS = frozenset({sync_recent_events.name, retry_failed_event_ranges.name})
