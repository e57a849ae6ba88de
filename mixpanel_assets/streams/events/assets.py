"""`mixpanel/events`, as a stream."""

import dagster as dg
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

from mixpanel_assets import partitions
from mixpanel_assets.client.client import MixpanelClient
from mixpanel_assets.pools import EXPORT_POOL
from mixpanel_assets.projects import THE_ENVIRONMENTS, CopiedProject
from mixpanel_assets.streams.budgets import budget
from mixpanel_assets.streams.events import chunking, reports
from mixpanel_assets.streams.events.checks import events_checks
from mixpanel_assets.streams.events.graph import RETRY_JOB, TABLE, EventsOps
from mixpanel_assets.streams.events.settings import EventsConfig
from mixpanel_assets.streams.stream import Owed, Stream


def _events(project: CopiedProject) -> Stream:
    """The stream of a project."""
    key, ops = project.key(TABLE), EventsOps(project)
    schedule = project.called("hourly_events_schedule")

    def request(lookback_days: int) -> dg.RunRequest:
        first, last = partitions.trailing_days(lookback_days, project.variables)
        return dg.RunRequest(tags={ASSET_PARTITION_RANGE_START_TAG: first, ASSET_PARTITION_RANGE_END_TAG: last})

    def owed(instance: dg.DagsterInstance, client: MixpanelClient) -> Owed | dg.SkipReason:
        days = reports.owed_days(instance, key, client.events_source)
        if not days:
            return dg.SkipReason("no day has failed since it last came")
        needs = budget(client.exports, len(chunking.chunks_of(days, EventsConfig().chunk_days)))
        return Owed(f"{len(days)} days", reports.last_run_with_failures(instance, key), needs)

    return Stream(
        name=TABLE,
        key=key,
        pool=project.pool(EXPORT_POOL),
        requests="exports",
        config=EventsConfig,
        asset=ops.asset,
        checks=events_checks(project),
        sync_job=project.called("sync_recent_events"),
        sync_description=f"Fetch days of events; what {schedule} starts, for the trailing days.",
        retry_job=project.called(RETRY_JOB),
        retry_sensor=project.called(f"{RETRY_JOB}_sensor"),
        make_retry_job=ops.retry_job,
        schedule=schedule,
        schedule_description=(
            f"Syncs today and the {{days}} days before, of {key.to_user_string()}, every hour, unless a sync of it is "
            "under way. Events that arrive late are found this way."
        ),
        request=request,
        owed=owed,
        project=project,
        of=_events,
    )


EVENTS = _events(THE_ENVIRONMENTS)
EVENTS_KEY = EVENTS.key
