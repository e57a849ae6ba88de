"""Sensors: those that retry what failed, one that clears away dead runs, one that keeps columns up to date.

The retries are off until somebody turns them on. They keep no state: how often a sync was tried again is counted by
the runs that say so in a tag. Whether Mixpanel's hour has room is asked of the ledger before, so that no retry is
started only to fail.
"""

import time
from collections.abc import Collection

import dagster as dg

from mixpanel_assets.active_runs import active_run, is_sync_of
from mixpanel_assets.errors import MixpanelAssetsError
from mixpanel_assets.executor.run_locks import fail_dead_runs
from mixpanel_assets.identities.publish import VIEW
from mixpanel_assets.projects import CopiedProject
from mixpanel_assets.properties.sources import SOURCES, Source
from mixpanel_assets.resources import ProjectResources
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
        name=stream.retry_sensor,
        job_name=stream.retry_job,
        required_resource_keys=stream.project.resource_keys("mixpanel"),
        minimum_interval_seconds=60,
        description=_DESCRIPTION,
    )
    def sensor(context: dg.SensorEvaluationContext) -> _Answer:
        mixpanel = ProjectResources(context.resources, stream.project).mixpanel
        try:
            owed = stream.owed(context.instance, mixpanel.client())
        except MixpanelAssetsError as error:
            return dg.SkipReason(str(error))
        if isinstance(owed, dg.SkipReason):
            return owed
        return _retry(context.instance, stream, owed)

    return sensor


def dead_runs_sensor(project: CopiedProject) -> dg.SensorDefinition:
    """The sensor that clears away dead runs, of whatever project; one is enough, and none knows of another."""

    @dg.sensor(
        name=project.called("dead_runs_sensor"),
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=(
            "Reports runs failed whose process was killed, and frees their slots, which would keep others queued."
        ),
    )
    def sensor(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        failed = fail_dead_runs(context.instance)
        return dg.SkipReason(f"reported as failed: {', '.join(failed)}" if failed else "no run has died")

    return sensor


def properties_sensor(project: CopiedProject, sources: Collection[Source] = SOURCES) -> dg.SensorDefinition:
    """The sensor that keeps columns up to date with the syncs, on from the start, and asks nothing of Mixpanel.

    Dagster's own sensor for automation conditions is off until somebody finds it.
    """
    return dg.AutomationConditionSensorDefinition(
        project.called("properties_sensor"),
        target=dg.AssetSelection.assets(*(project.key(source.catalogue) for source in sources), project.key(VIEW)),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=30,
        description="Brings what is made of tables up to date after each sync: properties, typed views, identities.",
    )


def _retry(instance: dg.DagsterInstance, stream: Stream, owed: Owed) -> _Answer:
    """The run that fetches what is owed, or why there is none now."""
    active = active_run(instance, stream.key, stream.jobs)
    if active:
        return dg.SkipReason(f"run {active[:8]} is under way")
    first = _first_run(instance, owed.run_id)
    records = instance.get_run_records(dg.RunsFilter(tags={RETRY_OF_TAG: first}))
    # One run may have synced several streams or projects, each of which is tried again by itself.
    retries = [record for record in records if is_sync_of(record.dagster_run, stream.key, stream.jobs)]
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
