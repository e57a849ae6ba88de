"""The threaded executor: the steps of a run as threads of one process.

Belongs here: the loop that starts steps, hands on what they report, and ends the run. Does not belong here: who may
have a slot of a pool (pools.py), how events reach the disk (event_log.py), which runs are alive (run_locks.py), how a
step learns that it should stop (stopping.py).

Dagster has executors for one step at a time and for a process per step; a page of a second or two is worth neither.
Only the thread that called `execute` touches `ActiveExecution`, Dagster's account of which step may run; the threads of
the steps report to it through a queue.

This stands on private modules of Dagster (there is no other way to an executor that keeps retries, hooks and pools);
test_executor_contract.py says on which, and turns red when a new minor moves them. Another executor can take its place:
`build_defs(executor=...)`; run config then follows that executor's own schema.
"""

import contextvars
import os
import queue
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import dagster as dg
from dagster._core.events import EngineEventData
from dagster._core.execution.api import ExecuteRunWithPlanIterable
from dagster._core.execution.compute_logs import create_compute_log_file_key
from dagster._core.execution.context.system import PlanExecutionContext, PlanOrchestrationContext, StepExecutionContext
from dagster._core.execution.context_creation_job import PlanExecutionContextManager
from dagster._core.execution.plan.active import ActiveExecution
from dagster._core.execution.plan.execute_plan import (
    _handle_compute_log_setup_error,
    _trigger_hook,
    dagster_event_sequence_for_step,
)
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.plan.state import KnownExecutionState
from dagster._core.execution.plan.step import ExecutionStep
from dagster._core.execution.retries import RetryMode, get_retries_config
from dagster._core.executor.base import Executor

from mixpanel_assets.event_log import flush, run_instance
from mixpanel_assets.pools import POOL_LIMITS, PoolSlots
from mixpanel_assets.run_locks import RunLocks
from mixpanel_assets.stopping import stoppable

# How long the loop waits for news before it looks at signals, due retries and slots.
TICK_SECONDS = 0.1

# What running steps get to end after a cancel. A page takes a second or two; who waits on `stop_requested()` is faster.
GRACE_SECONDS = 10.0

# How often the loop asks whether the run was ended elsewhere; one question costs some 5 ms.
LOOK_AT_STATUS_EVERY_SECONDS = 5.0

LOCKS_FOLDER = "run_locks"


@dataclass(frozen=True)
class ThreadEnded:
    """The last word of a step's thread. `reported`: whether it had said success, failure or up for retry before."""

    thread: threading.Thread
    step_key: str
    reported: bool
    error: BaseException | None


News = dg.DagsterEvent | ThreadEnded


class ThreadedExecutor(Executor):
    def __init__(self, retries: RetryMode, max_concurrent: int, pool_limits: Mapping[str, int]):
        self._retries = retries
        self._max_concurrent = max_concurrent
        self._pool_limits = pool_limits

    @property
    def retries(self) -> RetryMode:
        return self._retries

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[dg.DagsterEvent]:
        """The events of the run's steps, each within a few tenths of a second of its happening."""
        started = time.monotonic()
        yield _engine_event(plan_context, f"Running up to {self._max_concurrent} steps at a time as threads of process")
        with ExitStack() as stack:
            locks = stack.enter_context(_run_lock(plan_context))
            instance = stack.enter_context(run_instance(plan_context.instance, plan_context.run_id))

            def run_steps(
                job_context: PlanExecutionContext, execution_plan: ExecutionPlan
            ) -> Iterator[dg.DagsterEvent]:
                with (
                    PoolSlots(instance, job_context.dagster_run, self._pool_limits, locks) as slots,
                    execution_plan.start(
                        retry_mode=self._retries,
                        max_concurrent=self._max_concurrent,
                        instance_concurrency_context=slots,
                        step_dependency_config=self.step_dependency_config,
                    ) as active,
                ):
                    yield from StepThreads(job_context, active, slots, self._max_concurrent).run()

            yield from ExecuteRunWithPlanIterable(
                execution_plan=execution_plan,
                iterator=run_steps,
                execution_context_manager=PlanExecutionContextManager(
                    job=plan_context.job,
                    retry_mode=self._retries,
                    execution_plan=execution_plan,
                    run_config=plan_context.run_config,
                    dagster_run=plan_context.dagster_run,
                    instance=instance,
                    raise_on_error=plan_context.raise_on_error,
                    output_capture=plan_context.output_capture,
                    step_dependency_config=self.step_dependency_config,
                ),
            )
        yield _engine_event(plan_context, f"Ran all steps in {time.monotonic() - started:.1f} s in process")


class StepThreads:
    """The loop of one run. Everything here but `_work` runs in the thread that called the executor."""

    def __init__(
        self, job_context: PlanExecutionContext, active: ActiveExecution, slots: PoolSlots, max_concurrent: int
    ):
        self._job_context = job_context
        self._active = active
        self._slots = slots
        self._max_concurrent = max_concurrent
        self._news: queue.Queue[News] = queue.Queue()
        self._threads: dict[threading.Thread, str] = {}  # thread -> step key
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._patience = GRACE_SECONDS
        self._look_at_status_at = time.monotonic() + LOOK_AT_STATUS_EVERY_SECONDS

    def run(self) -> Iterator[dg.DagsterEvent]:
        with ExitStack() as captures:
            yield from self._capture_compute_logs(captures)
            try:
                yield from self._run_all()
            finally:
                self._stop.set()
                self._wait_for_threads(self._patience)
                flush(self._job_context.instance)

    def _run_all(self) -> Iterator[dg.DagsterEvent]:
        happened: list[dg.DagsterEvent] = []
        while not self._active.is_complete or self._threads:
            # A slot that just came free gets its next step before anybody hears about the last one.
            self._start_ready_steps()
            yield from happened
            yield from self._active.concurrency_event_iterator(self._job_context)
            happened = [*self._take_news(), *self._active.plan_events_iterator(self._job_context)]
            if self._error:
                yield from happened
                raise self._error
            if self._active.check_for_interrupts() or self._was_ended_elsewhere():
                yield from happened
                yield from self._cancel()
        yield from happened

    def _start_ready_steps(self) -> None:
        if len(self._threads) >= self._max_concurrent:
            self._slots.withdraw()
        for step in self._active.get_steps_to_execute():
            if not step.pool:
                flush(self._job_context.instance)  # A step outside the pools collects: what it builds on is written.
            self._start(step)

    def _start(self, step: ExecutionStep) -> None:
        known_state = _snapshot(self._active.get_known_state())
        # A daemon: a step that does not heed the stop must not keep the process from ending.
        thread = threading.Thread(
            target=contextvars.copy_context().run, args=(self._work, step, known_state), name=step.key, daemon=True
        )
        self._threads[thread] = step.key
        thread.start()

    def _work(self, step: ExecutionStep, known_state: KnownExecutionState) -> None:
        """The life of a step's thread."""
        reported = False
        error = None
        try:
            with stoppable(self._stop):
                for event in _step_and_hook_events(self._job_context.for_step(step, known_state)):
                    reported = reported or _is_last_of_step(event)
                    self._news.put(event)
        except BaseException as raised:  # noqa: BLE001 the loop raises it, in its own thread
            error = raised
        self._news.put(ThreadEnded(threading.current_thread(), step.key, reported, error))

    def _take_news(self) -> Iterator[dg.DagsterEvent]:
        """Wait a tick for news, then take all there is."""
        try:
            news = [self._news.get(timeout=TICK_SECONDS)]
        except queue.Empty:
            return
        while not self._news.empty():
            news.append(self._news.get())
        for item in news:
            if isinstance(item, ThreadEnded):
                self._bid_farewell(item)
            else:
                if not item.is_hook_event:
                    self._active.handle_event(item)
                yield item

    def _bid_farewell(self, ended: ThreadEnded) -> None:
        del self._threads[ended.thread]
        if not ended.reported:
            self._active.verify_complete(self._job_context, ended.step_key)
        if ended.error and not self._stop.is_set():
            self._error = self._error or ended.error

    def _cancel(self) -> Iterator[dg.DagsterEvent]:
        """End the run: the running steps get a moment, a second signal takes it from them."""
        self._active.mark_interrupted()
        self._stop.set()
        self._report_canceling()
        yield dg.DagsterEvent.engine_event(
            self._job_context,
            f"Cancelled: no further step starts; {len(self._threads)} running steps get {GRACE_SECONDS:g} s to end.",
            EngineEventData.interrupted(sorted(self._threads.values())),
        )
        deadline = time.monotonic() + GRACE_SECONDS
        while self._threads and time.monotonic() < deadline and not self._active.check_for_interrupts():
            yield from self._take_news()
        self._patience = 0.0
        farewell = _farewell(sorted(self._threads.values()))
        yield dg.DagsterEvent.engine_event(self._job_context, farewell, EngineEventData())
        raise dg.DagsterExecutionInterruptedError(farewell)

    def _was_ended_elsewhere(self) -> bool:
        """Whether somebody marked the run as ended, as the UI does with a run that it cannot send a signal to."""
        if time.monotonic() < self._look_at_status_at:
            return False
        self._look_at_status_at = time.monotonic() + LOOK_AT_STATUS_EVERY_SECONDS
        run = self._job_context.instance.get_run_by_id(self._job_context.run_id)
        return run is None or run.is_finished or run.status == dg.DagsterRunStatus.CANCELING

    def _report_canceling(self) -> None:
        """A signal ends the run as cancelled, as the button in the UI does; Dagster alone would call it a failure."""
        instance = self._job_context.instance
        run = instance.get_run_by_id(self._job_context.run_id)
        if run and run.status == dg.DagsterRunStatus.STARTED and not instance.run_will_resume(run.run_id):
            instance.report_run_canceling(run, "The run's process was asked to stop.")

    def _wait_for_threads(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        for thread in self._threads:
            while thread.is_alive() and time.monotonic() < deadline and not self._active.check_for_interrupts():
                thread.join(TICK_SECONDS)

    def _capture_compute_logs(self, captures: ExitStack) -> Iterator[dg.DagsterEvent]:
        """Capture stdout and stderr once for the process; threads share them."""
        logs = self._job_context.instance.compute_log_manager
        step_keys = [step.key for step in self._job_context.execution_plan.get_steps_to_execute_in_topo_order()]
        log_key = logs.build_log_key_for_run(self._job_context.run_id, create_compute_log_file_key())  # type: ignore[no-untyped-call]  # Dagster's is not annotated
        try:
            log_context = captures.enter_context(logs.capture_logs(log_key))
            yield dg.DagsterEvent.capture_logs(self._job_context, step_keys, log_key, log_context)
        except Exception:  # noqa: BLE001 logs that cannot be captured are no reason to fail, as in Dagster's executors
            yield from _handle_compute_log_setup_error(self._job_context, sys.exc_info())


def _step_and_hook_events(step_context: StepExecutionContext) -> Iterator[dg.DagsterEvent]:
    events = []
    for event in dagster_event_sequence_for_step(step_context):
        events.append(event)
        yield event
    yield from _trigger_hook(step_context, events)


def _is_last_of_step(event: dg.DagsterEvent) -> bool:
    return event.is_step_success or event.is_step_failure or event.is_step_up_for_retry


def _snapshot(state: KnownExecutionState) -> KnownExecutionState:
    """The loop goes on adding to the set of ready outputs while the step's thread reads it."""
    return state._replace(ready_outputs=set(state.ready_outputs))


def _farewell(left_behind: list[str]) -> str:
    if not left_behind:
        return "The run was cancelled; its running steps have ended."
    return f"The run was cancelled; {len(left_behind)} steps did not end in time: {', '.join(left_behind)}."


def _engine_event(plan_context: PlanOrchestrationContext, message: str) -> dg.DagsterEvent:
    pid = os.getpid()
    return dg.DagsterEvent.engine_event(plan_context, f"{message} {pid}.", EngineEventData.in_process(pid))


@contextmanager
def _run_lock(plan_context: PlanOrchestrationContext) -> Iterator[RunLocks | None]:
    """Hold the lock that says this run is alive; an instance in memory has nobody to tell."""
    if not plan_context.instance.is_persistent:
        yield None
        return
    locks = RunLocks(Path(plan_context.instance.root_directory) / LOCKS_FOLDER)
    with locks.alive(plan_context.run_id):
        yield locks


def build_threaded_executor(pool_limits: Mapping[str, int]) -> dg.ExecutorDefinition:
    """An executor that knows the code location's own pools: pool name -> steps at a time.

    Run config: `execution.config.max_concurrent` (default: the sum of the limits, so that every pool can be full) and
    `execution.config.retries`, as in Dagster's executors. A run with fewer than one step at a time fails at its start.
    """

    @dg.executor(
        name="threaded",
        config_schema={
            "max_concurrent": dg.Field(
                int,
                default_value=max(1, sum(pool_limits.values())),
                description="How many steps may run at the same time, over all pools. A pool's own limit holds besides,"
                " so a larger number does no harm; 1 runs one step after the other.",
            ),
            "retries": get_retries_config(),  # type: ignore[no-untyped-call]  # Dagster's is not annotated
        },
        requirements=[],
    )
    def threaded(init: dg.InitExecutorContext) -> Executor:
        config = cast("Mapping[str, Any]", init.executor_config)
        max_concurrent = config["max_concurrent"]
        if max_concurrent < 1:
            raise dg.DagsterInvariantViolationError(f"max_concurrent is {max_concurrent}; it must be 1 or more.")
        retries = RetryMode.from_config(config["retries"]) or RetryMode.ENABLED
        return ThreadedExecutor(retries, max_concurrent, pool_limits)

    return threaded


threaded_executor = build_threaded_executor(POOL_LIMITS)
