"""Word of failed runs to whoever wants it: `build_defs(on_failure=...)` takes a function of yours."""

from collections.abc import Callable, Collection
from dataclasses import dataclass

import dagster as dg

from mixpanel_assets.projects import THE_ENVIRONMENTS, CopiedProject


@dataclass(frozen=True)
class FailedRun:
    """A run that failed, a partial failure included.

    Attributes:
        run_id: Dagster's.
        job_name: What ran; runs of the Materialize button are of `__ASSET_JOB`.
        assets: Keys of what it was to make, as text, e.g. "mixpanel/profiles"; empty for a job without assets.
        message: Why, in one line per failed step.
    """

    run_id: str
    job_name: str
    assets: tuple[str, ...]
    message: str


def alert_on_failure(
    on_failure: Callable[[FailedRun], object] | None,
    project: CopiedProject = THE_ENVIRONMENTS,
    jobs: Collection[str] = (),
) -> dg.SensorDefinition:
    """The sensor that calls `on_failure` once per failed run; on from the start if there is such a function.

    It is told of the runs of a project's jobs, which are given by their names, and of those that were to make or check
    one of its assets.
    """

    @dg.run_failure_sensor(
        name=project.called("alert_on_failure"),
        default_status=dg.DefaultSensorStatus.RUNNING if on_failure else dg.DefaultSensorStatus.STOPPED,
        description=(
            "Tells of failed runs, partial failures included, by the function given to build_defs(on_failure=...); "
            "without one, in the log of this sensor's ticks."
        ),
    )
    def sensor(context: dg.RunFailureSensorContext) -> dg.SkipReason | None:
        run = context.dagster_run
        if run.job_name not in jobs and not _touches(project, context):
            return dg.SkipReason(f"run {run.run_id[:8]} is none of {project.group}")
        failed = FailedRun(
            run_id=run.run_id,
            job_name=run.job_name,
            assets=_assets(context),
            message=_message(context),
        )
        if on_failure is None:
            context.log.error(f"run {failed.run_id} failed: {failed.message}")
        else:
            on_failure(failed)
        return None

    return sensor


def _assets(context: dg.RunFailureSensorContext) -> tuple[str, ...]:
    # The log: a run of a whole job, such as a schedule's, has no selection.
    planned = context.instance.all_logs(context.dagster_run.run_id, dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED)
    keys = {entry.dagster_event.asset_key for entry in planned if entry.dagster_event}
    return tuple(sorted(key.to_user_string() for key in keys if key))


def _touches(project: CopiedProject, context: dg.RunFailureSensorContext) -> bool:
    """Whether the run was to make or check one of a project's assets."""
    made = map(dg.AssetKey.from_user_string, _assets(context))
    checked = (check.asset_key for check in context.dagster_run.asset_check_selection or ())
    return any(project.owns(key) for key in (*made, *checked))


def _message(context: dg.RunFailureSensorContext) -> str:
    reasons = [_reason(event) for event in context.get_step_failure_events()]
    return "\n".join(dict.fromkeys(reasons)) or " ".join((context.failure_event.message or "no reason given").split())


def _reason(event: dg.DagsterEvent) -> str:
    """What a step gave as its reason: our own words if it has them, else the error's first line."""
    data = event.step_failure_data
    said = data.user_failure_data
    if said is not None and said.description:
        return said.description
    error = data.error
    while error is not None and error.cause is not None:
        error = error.cause
    return " ".join(error.message.split()) if error else "no reason given"
