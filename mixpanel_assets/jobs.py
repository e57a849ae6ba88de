"""Jobs: what people start by name besides materializing an asset."""

from collections.abc import Sequence
from typing import Any

import dagster as dg

from mixpanel_assets import job_names
from mixpanel_assets.streams.events.assets import EVENTS_KEY, EventsConfig, failed_event_ranges
from mixpanel_assets.streams.profiles.assets import PROFILES_KEY
from mixpanel_assets.streams.profiles.settings import ProfilesConfig


def jobs(executor: dg.ExecutorDefinition) -> Sequence[Any]:
    """The jobs, their steps run by this executor, whatever the code location uses for the rest."""
    return [
        dg.define_asset_job(
            job_names.SYNC_PROFILES,
            selection=dg.AssetSelection.assets(PROFILES_KEY),
            executor_def=executor,
            description="Fetch all profiles; what hourly_profiles_schedule starts.",
        ),
        dg.define_asset_job(
            job_names.SYNC_RECENT_EVENTS,
            selection=dg.AssetSelection.assets(EVENTS_KEY),
            executor_def=executor,
            description="Fetch days of events; what hourly_events_schedule starts, for the trailing days.",
        ),
        dg.define_asset_job(
            job_names.RETRY_FAILED_PROFILE_PAGES,
            selection=dg.AssetSelection.assets(PROFILES_KEY),
            config=dg.RunConfig(ops={"mixpanel__profiles": ProfilesConfig(retry_failed_pages=True)}),
            executor_def=executor,
            description="Fetch only the profile pages that failed last time, and publish the complete snapshot.",
        ),
        failed_event_ranges.to_job(
            job_names.RETRY_FAILED_EVENT_RANGES,
            config=dg.RunConfig(ops={"plan": EventsConfig(retry_failed_ranges=True)}),
            executor_def=executor,
            description="Fetch only the days of events that failed and have not come since. No partitions to choose.",
        ),
    ]
