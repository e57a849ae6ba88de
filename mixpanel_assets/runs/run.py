"""Starts a run of an asset in this process, and tells what happens in it while it happens.

Behind `mp` and the Python functions; the same run as that of `dagster asset materialize`, so it shows in the UI with
its steps. Belongs here: the run, and what its events say. Does not belong here: what is shown of it (progress.py), and
what an asset's metadata mean (syncs.py).
"""

import datetime
import logging
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
from dagster._core.definitions.reconstruct import ReconstructableJob, ReconstructableRepository
from dagster._core.execution.api import execute_run_iterator
from dagster_shared.error import SerializableErrorInfo

import mixpanel_assets.errors
from mixpanel_assets.errors import Cancelled, ConfigurationError, MixpanelAssetsError, error_of
from mixpanel_assets.io_manager_keys import WAREHOUSE
from mixpanel_assets.streams.outcome import MISSING

Metadata = Mapping[str, Any]
Say = Callable[[int, str], None]
_LOCATION = "mixpanel_assets.definitions"
# What the end of a run says again: pages that failed have had their line, and so have steps that others wait for.
_TOLD_OTHERWISE = (MISSING, "Dependencies for step ")


@dataclass(frozen=True)
class RunOrder:
    """What to run, and how.

    Attributes:
        asset: Its key.
        config: Its run config, flat.
        max_concurrent: Steps at a time; a pool's own limit holds besides. 1: one after the other.
        tags: Tags of the run, such as its partition range.
        log_level: From which level on Dagster's own lines appear on stderr.
    """

    asset: dg.AssetKey
    config: Mapping[str, Any]
    max_concurrent: int
    tags: Mapping[str, str] = field(default_factory=dict)
    log_level: str = "CRITICAL"

    def run_config(self) -> dict[str, Any]:
        """As Dagster wants it."""
        return {
            "ops": {self.asset.to_python_identifier(): {"config": dict(self.config)}},
            "execution": {"config": {"max_concurrent": self.max_concurrent}},
            "loggers": {"console": {"config": {"log_level": self.log_level}}},
        }


@dataclass
class RunReport:
    """How a run ended.

    Attributes:
        run_id: Dagster's.
        success: Everything ran, and every blocking check passed.
        wrote: Whether the table is changed.
        stored: Metadata of what it stored; None when it stored nothing, or was ended before it could tell.
        stored_at: When, in UTC.
        failed_checks: What the failed asset checks say, in words; not those that only warn.
        error: Why it failed, if a step or the run as a whole did.
    """

    run_id: str
    success: bool = False
    wrote: bool = False
    stored: Metadata | None = None
    stored_at: datetime.datetime | None = None
    failed_checks: list[str] = field(default_factory=list)
    error: MixpanelAssetsError | None = None


def run_asset(
    order: RunOrder, instance: dg.DagsterInstance, on_output: Callable[[Metadata], None], say: Say
) -> RunReport:
    """Run until the end.

    Args:
        order: What to run.
        instance: Where the run is recorded.
        on_output: Told of the metadata of every op output that has some, in this thread, a few tenths of a second
            after the op.
        say: Told of log lines from WARNING on (level, text), from any thread.

    Returns:
        How it ended; a failed run is no exception.

    Raises:
        Cancelled: the run was asked to end, here or in the UI.
    """
    # In a notebook a loop runs in this thread, and Dagster's own, for asynchronous resources, says so when it closes.
    warnings.filterwarnings("ignore", "coroutine 'BaseEventLoop.shutdown_asyncgens' was never awaited", RuntimeWarning)
    job, run = _new_run(order, instance)
    report = RunReport(run.run_id)
    instance.add_event_listener(run.run_id, _listener(report, say))
    try:
        # While it iterates, Dagster keeps Ctrl-C for the executor, which ends the run.
        for event in execute_run_iterator(job, run, instance):
            _note(event, report, on_output)
            if event.is_engine_event and "steps_interrupted" in event.engine_event_data.metadata:
                say(logging.WARNING, f"{event.message} Ctrl-C again ends it at once.")
    except dg.DagsterExecutionInterruptedError:
        raise _cancelled(report) from None
    ended = instance.get_run_by_id(run.run_id)
    if ended is not None and ended.status in (dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.CANCELING):
        raise _cancelled(report)
    return report


def _cancelled(report: RunReport) -> Cancelled:
    if not report.wrote:
        return Cancelled("the sync was cancelled before it stored anything, the table is as it was")
    return Cancelled("the sync was cancelled after it had stored what came")


def _new_run(order: RunOrder, instance: dg.DagsterInstance) -> tuple[ReconstructableJob, dg.DagsterRun]:
    """A run of Dagster's implicit asset job, as `dagster asset materialize` makes it."""
    # Dagster keeps the last job by its name, and the days of events may have been set anew since.
    ReconstructableJob.get_definition.cache_clear()
    repository = ReconstructableRepository.for_module(_LOCATION, "defs")
    definition = repository.get_definition()
    implicit = definition.get_implicit_job_def_for_assets([order.asset])
    if implicit is None:
        raise ConfigurationError(f"{_LOCATION} has no asset {order.asset.to_user_string()}")
    job = repository.with_repository_load_data(definition.repository_load_data).get_reconstructable_job(implicit.name)
    run = instance.create_run_for_job(
        job_def=job.get_definition(),
        run_config=order.run_config(),
        tags=order.tags,
        asset_selection=frozenset([order.asset]),
        job_code_origin=job.get_python_origin(),
        repository_load_data=definition.repository_load_data,
    )
    return job, run


def _note(event: dg.DagsterEvent, report: RunReport, on_output: Callable[[Metadata], None]) -> None:
    """Read one event into the report."""
    if event.is_successful_output and event.step_output_data.metadata:
        on_output(_values(event.step_output_data.metadata))
    elif event.is_handled_output and getattr(event.event_specific_data, "manager_key", "") == WAREHOUSE:
        report.wrote = True
    elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
        evaluation = event.asset_check_evaluation_data
        if not evaluation.passed and evaluation.severity == dg.AssetCheckSeverity.ERROR:
            report.failed_checks.append(evaluation.description or evaluation.check_name)
    elif event.is_step_failure and report.error is None:
        report.error = step_error(event)
    elif event.event_type == dg.DagsterEventType.RUN_SUCCESS:
        report.success = True
    elif event.event_type == dg.DagsterEventType.RUN_FAILURE and report.error is None:
        report.error = _run_error(event)


def step_error(event: dg.DagsterEvent) -> MixpanelAssetsError:
    """The error that a step raised, or that its output met on the way into the table."""
    data = event.step_failure_data
    said = data.user_failure_data
    if said is not None and said.description is not None:
        name = said.metadata["error"].value if "error" in said.metadata else ""
        return error_of(str(name), said.description)
    errors = _chain(data.error)
    found = next((error for error in errors if error.cls_name in vars(mixpanel_assets.errors)), None)
    if found is not None:
        return error_of(
            str(found.cls_name), _line(found).removeprefix(f"{MixpanelAssetsError.__module__}.{found.cls_name}: ")
        )
    return MixpanelAssetsError(f"step {event.step_key} failed: {_line(errors[-1]) if errors else 'no reason given'}")


def _run_error(event: dg.DagsterEvent) -> MixpanelAssetsError | None:
    """The error that kept a run from its steps; None where steps failed, which tell it themselves."""
    errors = _chain(event.job_failure_data.error)
    return MixpanelAssetsError(_line(errors[-1])) if errors else None


def _chain(error: SerializableErrorInfo | None) -> list[SerializableErrorInfo]:
    """An error and what caused it, down to the first cause."""
    return [] if error is None else [error, *_chain(error.cause)]


def _line(error: SerializableErrorInfo) -> str:
    return " ".join(error.message.split())


def _values(metadata: Mapping[str, dg.MetadataValue[Any]]) -> Metadata:
    return {name: value.value for name, value in metadata.items()}


def _listener(report: RunReport, say: Say) -> Callable[[dg.EventLogEntry], None]:
    """What is heard from the threads of the steps, when it happens: log lines, and materializations, since those of a
    step that fails in the end are logged and never handed on."""

    def listen(entry: dg.EventLogEntry) -> None:
        event = entry.dagster_event
        if event is None:
            if int(entry.level) >= logging.WARNING and not entry.user_message.startswith(_TOLD_OTHERWISE):
                say(int(entry.level), entry.user_message)
        elif event.is_step_materialization:
            report.stored = _values(event.step_materialization_data.materialization.metadata)
            report.stored_at = datetime.datetime.now(datetime.timezone.utc)

    return listen
