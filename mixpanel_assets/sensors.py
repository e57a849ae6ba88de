"""Sensors: those that retry what failed, one that clears away dead runs, one that keeps columns up to date.

The retries are off until somebody turns them on. They keep no state: how often a sync was tried again is counted by
the runs that say so in a tag. Whether Mixpanel's hour has room is asked of the ledger before, so that no retry is
started only to fail.
"""

import time

import dagster as dg

from mixpanel_assets.active_runs import active_run
from mixpanel_assets.errors import MixpanelAssetsError
from mixpanel_assets.executor.run_locks import bury_dead_runs
from mixpanel_assets.properties.assets import EVENT_PROPERTIES_KEY, PROFILE_PROPERTIES_KEY
from mixpanel_assets.resources import MixpanelResource
from mixpanel_assets.streams.stream import Owed, Stream

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


def retry_sensor(stream: Stream) -> dg.SensorDefinition:
    """The sensor that fetches again what a stream owes."""

    @dg.sensor(
        name=f"{stream.retry_job}_sensor",
        job_name=stream.retry_job,
        minimum_interval_seconds=60,
        description=_DESCRIPTION,
    )
    def sensor(context: dg.SensorEvaluationContext, mixpanel: MixpanelResource) -> _Answer:
        try:
            owed = stream.owed(context.instance, mixpanel.client())
        except MixpanelAssetsError as error:
            return dg.SkipReason(str(error))
        if isinstance(owed, dg.SkipReason):
            return owed
        return _retry(context.instance, owed, active_run(context.instance, stream.key, stream.jobs))

    return sensor


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

SENSORS = (dead_runs_sensor, properties_sensor)


def _retry(instance: dg.DagsterInstance, owed: Owed, active: str | None) -> _Answer:
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
