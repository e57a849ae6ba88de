"""Schedules: hourly syncs that never overlap with themselves, nor with a sync that somebody started by hand.

Off until somebody turns them on. A run that is still under way makes a tick skip, with a word; dagster.yaml's limit for
`dagster/schedule_name` would only queue it, and holds only where that file is used.
"""

import datetime
from collections.abc import Collection

import dagster as dg
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

from mixpanel_assets import partitions, settings
from mixpanel_assets.active_runs import active_run
from mixpanel_assets.job_names import EVENT_JOBS, PROFILE_JOBS, SYNC_PROFILES, SYNC_RECENT_EVENTS
from mixpanel_assets.streams.events.assets import EVENTS_KEY
from mixpanel_assets.streams.profiles.assets import PROFILES_KEY

# Mixpanel takes events that are days late (mobile devices offline, imports); five days hold nearly all of them.
LOOKBACK_DAYS = 5
HOURLY = "0 * * * *"


def hourly_profiles_schedule(cron: str = HOURLY) -> dg.ScheduleDefinition:
    """The schedule for profiles, at the minutes that `cron` names."""

    @dg.schedule(
        cron,
        name="hourly_profiles_schedule",
        job_name=SYNC_PROFILES,
        description="Syncs mixpanel/profiles every hour, unless a sync of it is under way.",
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        return _unless_active(context, PROFILES_KEY, PROFILE_JOBS, dg.RunRequest())

    return schedule


def hourly_events_schedule(lookback_days: int = LOOKBACK_DAYS, cron: str = HOURLY) -> dg.ScheduleDefinition:
    """The schedule for events, at the minutes that `cron` names.

    Args:
        lookback_days: Days before today that each sync fetches again; 0: today only.
        cron: Five fields.
    """

    @dg.schedule(
        cron,
        name="hourly_events_schedule",
        job_name=SYNC_RECENT_EVENTS,
        description=(
            f"Syncs today and the {lookback_days} days before, of mixpanel/events, every hour, unless a sync of it is "
            "under way. Events that arrive late are found this way."
        ),
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        first, last = trailing_days(lookback_days)
        request = dg.RunRequest(tags={ASSET_PARTITION_RANGE_START_TAG: first, ASSET_PARTITION_RANGE_END_TAG: last})
        return _unless_active(context, EVENTS_KEY, EVENT_JOBS, request)

    return schedule


def trailing_days(lookback_days: int) -> tuple[str, str]:
    """The first and the last day of a scheduled sync of events, as ISO dates: none before the first partition.

    Raises:
        ConfigurationError: MP_TIMEZONE or MP_EVENTS_START_DATE cannot be read.
    """
    today = datetime.date.fromisoformat(partitions.today())
    first = max(today - datetime.timedelta(days=lookback_days), settings.events_start_date())
    return min(first, today).isoformat(), today.isoformat()


def _unless_active(
    context: dg.ScheduleEvaluationContext, asset: dg.AssetKey, jobs: Collection[str], request: dg.RunRequest
) -> dg.RunRequest | dg.SkipReason:
    active = active_run(context.instance, asset, jobs)
    return dg.SkipReason(f"run {active[:8]} of {asset.to_user_string()} is under way") if active else request
