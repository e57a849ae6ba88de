"""`mixpanel/events`, as a stream."""

import dagster as dg
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

from mixpanel_assets import partitions
from mixpanel_assets.client.client import MixpanelClient
from mixpanel_assets.pools import EXPORT_POOL
from mixpanel_assets.streams.budgets import budget
from mixpanel_assets.streams.events import chunking, reports
from mixpanel_assets.streams.events.checks import events_checks
from mixpanel_assets.streams.events.graph import EVENTS_KEY, events_asset, failed_event_ranges
from mixpanel_assets.streams.events.settings import EventsConfig
from mixpanel_assets.streams.stream import Owed, Stream


def _retry_job(executor: dg.ExecutorDefinition) -> dg.JobDefinition:
    return failed_event_ranges.to_job(
        "retry_failed_event_ranges",
        config=dg.RunConfig(ops={"plan": EventsConfig(retry_failed_ranges=True)}),
        executor_def=executor,
        description="Fetch only the days of events that failed and have not come since. No partitions to choose.",
    )


def _request(lookback_days: int) -> dg.RunRequest:
    first, last = partitions.trailing_days(lookback_days)
    return dg.RunRequest(tags={ASSET_PARTITION_RANGE_START_TAG: first, ASSET_PARTITION_RANGE_END_TAG: last})


def _owed(instance: dg.DagsterInstance, client: MixpanelClient) -> Owed | dg.SkipReason:
    days = reports.owed_days(instance, EVENTS_KEY, client.events_source)
    if not days:
        return dg.SkipReason("no day has failed since it last came")
    needs = budget(client.exports, len(chunking.chunks_of(days, EventsConfig().chunk_days)))
    return Owed(f"{len(days)} days", reports.last_run_with_failures(instance, EVENTS_KEY), needs)


EVENTS = Stream(
    name="events",
    key=EVENTS_KEY,
    pool=EXPORT_POOL,
    config=EventsConfig,
    asset=events_asset,
    checks=events_checks,
    sync_job="sync_recent_events",
    sync_description="Fetch days of events; what hourly_events_schedule starts, for the trailing days.",
    retry_job="retry_failed_event_ranges",
    make_retry_job=_retry_job,
    schedule="hourly_events_schedule",
    schedule_description=(
        "Syncs today and the {days} days before, of mixpanel/events, every hour, unless a sync of it is under way. "
        "Events that arrive late are found this way."
    ),
    request=_request,
    owed=_owed,
)
