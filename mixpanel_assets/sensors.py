"""Sensors: two that retry what failed, one that clears away dead runs, one that keeps columns up to date.

The retries are off until somebody turns them on. They keep no state: how often a sync was tried again is counted by
the runs that say so in a tag. Whether Mixpanel's hour has room is asked of the ledger before, so that no retry is
started only to fail.
"""

import time
from dataclasses import dataclass

import dagster as dg

from mixpanel_assets.active_runs import active_run
from mixpanel_assets.errors import MixpanelAssetsError
from mixpanel_assets.executor.run_locks import bury_dead_runs
from mixpanel_assets.job_names import (
    EVENT_JOBS,
    PROFILE_JOBS,
    RETRY_FAILED_EVENT_RANGES,
    RETRY_FAILED_PROFILE_PAGES,
)
from mixpanel_assets.properties.assets import EVENT_PROPERTIES_KEY, PROFILE_PROPERTIES_KEY
from mixpanel_assets.resources import MixpanelResource
from mixpanel_assets.streams.budgets import Budget, budget
from mixpanel_assets.streams.events import reports as event_reports
from mixpanel_assets.streams.events.assets import EVENTS_KEY, EventsConfig
from mixpanel_assets.streams.events.chunking import chunks_of
from mixpanel_assets.streams.profiles.assets import PROFILES_KEY
from mixpanel_assets.streams.profiles.stream import PROFILES
from mixpanel_assets.streams.snapshot.reports import last_sync

# Pauses before the first, second and third retry, since the run before ended: Mixpanel's trouble is over by then, or it
# is none that passes.
RETRY_AFTER_SECONDS = (60.0, 300.0, 1200.0)
RETRY_OF_TAG = "mixpanel/retry_of"

_Answer = dg.RunRequest | dg.SkipReason
_DESCRIPTION = (
    f"After a sync with failures, fetches what failed again: up to {len(RETRY_AFTER_SECONDS)} times, "
    f"{', '.join(f'{pause / 60:g}' for pause in RETRY_AFTER_SECONDS)} minutes after the run before, and only if "
    "Mixpanel's hourly quota has room."
)


@dataclass(frozen=True)
class _Owed:
    """What a sync left undone, the run that said so last, and what fetching it needs of the hour."""

    what: str
    run_id: str
    needs: Budget


@dg.sensor(job_name=RETRY_FAILED_PROFILE_PAGES, minimum_interval_seconds=60, description=_DESCRIPTION)
def retry_failed_profile_pages_sensor(context: dg.SensorEvaluationContext, mixpanel: MixpanelResource) -> _Answer:
    event = context.instance.get_latest_materialization_event(PROFILES_KEY)
    if event is None or event.asset_materialization is None:
        return dg.SkipReason("no sync yet")
    pages = last_sync(PROFILES, event.asset_materialization.metadata).pages
    if not pages:
        return dg.SkipReason("the last sync has no failed pages")
    try:
        needs = budget(mixpanel.client().queries, len(pages), session_pages=True)
    except MixpanelAssetsError as error:
        return dg.SkipReason(str(error))
    active = active_run(context.instance, PROFILES_KEY, PROFILE_JOBS)
    return _retry(context.instance, _Owed(f"{len(pages)} pages", event.run_id, needs), active)


@dg.sensor(job_name=RETRY_FAILED_EVENT_RANGES, minimum_interval_seconds=60, description=_DESCRIPTION)
def retry_failed_event_ranges_sensor(context: dg.SensorEvaluationContext, mixpanel: MixpanelResource) -> _Answer:
    try:
        client = mixpanel.client()
        days = event_reports.owed_days(context.instance, EVENTS_KEY, client.events_source)
        needs = budget(client.exports, len(chunks_of(days, EventsConfig().chunk_days)))
    except MixpanelAssetsError as error:
        return dg.SkipReason(str(error))
    if not days:
        return dg.SkipReason("no day has failed since it last came")
    noted_by = event_reports.last_run_with_failures(context.instance, EVENTS_KEY)
    active = active_run(context.instance, EVENTS_KEY, EVENT_JOBS)
    return _retry(context.instance, _Owed(f"{len(days)} days", noted_by, needs), active)


@dg.sensor(
    minimum_interval_seconds=30,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Reports runs failed whose process was killed, and frees their slots, which would keep others queued.",
)
def dead_runs_sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    buried = bury_dead_runs(context.instance)
    return dg.SkipReason(f"reported as failed: {', '.join(buried)}" if buried else "no run has died")


# Dagster's own sensor for automation conditions is off until somebody finds it; this one keeps columns up to date with
# the syncs from the start, and asks nothing of Mixpanel.
properties_sensor = dg.AutomationConditionSensorDefinition(
    "properties_sensor",
    target=dg.AssetSelection.assets(PROFILE_PROPERTIES_KEY, EVENT_PROPERTIES_KEY),
    default_status=dg.DefaultSensorStatus.RUNNING,
    minimum_interval_seconds=30,
    description="Brings the catalogue of properties and the typed views up to date after each sync.",
)

SENSORS = (
    retry_failed_profile_pages_sensor,
    retry_failed_event_ranges_sensor,
    dead_runs_sensor,
    properties_sensor,
)


def _retry(instance: dg.DagsterInstance, owed: _Owed, active: str | None) -> _Answer:
    """The run that fetches what is owed, or why there is none now."""
    if active:
        return dg.SkipReason(f"run {active[:8]} is under way")
    first = _first_run(instance, owed.run_id)
    retries = instance.get_run_records(dg.RunsFilter(tags={RETRY_OF_TAG: first}))
    if len(retries) >= len(RETRY_AFTER_SECONDS):
        return dg.SkipReason(f"{owed.what} still fail after {len(retries)} retries: that is for people to look at")
    ended = [record.end_time or 0.0 for record in [*retries, *instance.get_run_records(dg.RunsFilter([first]))]]
    # A run may have been deleted: then nothing is known of its end, and nothing waited for.
    wait = max(ended, default=0.0) + RETRY_AFTER_SECONDS[len(retries)] - time.time()
    if wait > 0:
        return dg.SkipReason(f"{owed.what} failed: retry {len(retries) + 1} is due in {wait:.0f} s")
    if not owed.needs.fits:
        return dg.SkipReason(f"{owed.what} failed, but {owed.needs.words}")
    return dg.RunRequest(run_key=f"{first}-{len(retries) + 1}", tags={RETRY_OF_TAG: first})


def _first_run(instance: dg.DagsterInstance, run_id: str) -> str:
    """The sync that a run is a retry of; the run itself if it is none."""
    run = instance.get_run_by_id(run_id)
    return run.tags.get(RETRY_OF_TAG, run_id) if run else run_id
