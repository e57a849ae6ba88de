"""The loop of one run: a thread per step, and one thread that keeps account of them.

Belongs here: starting what is ready, taking in what the threads report, cancelling. Does not belong here: what
surrounds a run (threaded.py), and who may have a slot (slots.py).

Only the thread that runs the loop touches `ActiveExecution`, Dagster's account of which step may run; the threads of
the steps report to it through a queue.
"""

import contextvars
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

import dagster as dg
from dagster._core.events import EngineEventData
from dagster._core.execution.compute_logs import create_compute_log_file_key
from dagster._core.execution.context.system import PlanExecutionContext, StepExecutionContext
from dagster._core.execution.plan.active import ActiveExecution
from dagster._core.execution.plan.execute_plan import (
    _handle_compute_log_setup_error,
    _handle_compute_log_teardown_error,
    _trigger_hook,
    dagster_event_sequence_for_step,
)
from dagster._core.execution.plan.state import KnownExecutionState
from dagster._core.execution.plan.step import ExecutionStep

from mixpanel_assets.executor.event_log import flush
from mixpanel_assets.executor.slots import PoolSlots
from mixpanel_assets.file_turns import FileTurns
from mixpanel_assets.stopping import stoppable

_PACKAGE = __name__.partition(".")[0]

# How long the loop waits for events before it looks at signals, due retries and slots.
TICK_SECONDS = 0.1

# What running steps get to end after a cancel. A page takes a second or two; who waits on `stop_requested()` is faster.
GRACE_SECONDS = 10.0

# A page costs the interpreter some 25 ms when its answer comes. Pages that start together end together, and would all
# ask for it at once, round after round: with this distance twelve rounds of five pages end 0.3 s earlier.
START_APART_SECONDS = 0.03

# How often the loop asks whether the run was ended elsewhere; one question costs some 5 ms.
LOOK_AT_STATUS_EVERY_SECONDS = 5.0


@dataclass(frozen=True)
class ThreadEnded:
    """The last word of a step's thread. `reported`: whether it had said success, failure or up for retry before."""

    thread: threading.Thread
    step_key: str
    reported: bool
    error: BaseException | None


StepEvent = dg.DagsterEvent | ThreadEnded


class StepThreads:
    """The loop of one run. Everything here but `_work` runs in the thread that called the executor."""

    def __init__(
        self,
        job_context: PlanExecutionContext,
        active: ActiveExecution,
        slots: PoolSlots,
        max_concurrent: int,
        stop: threading.Event,
        make_sure: Callable[[], None],
    ):
        self._job_context = job_context
        self._active = active
        self._slots = slots
        self._max_concurrent = max_concurrent
        self._step_events: queue.Queue[StepEvent] = queue.Queue()
        self._threads: dict[threading.Thread, str] = {}  # thread -> step key
        self._stop = stop
        self._make_sure = make_sure
        self._turns = FileTurns()
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
            yield from self._release_compute_logs(captures)

    def alive(self) -> list[threading.Thread]:
        """The threads whose steps have not ended."""
        return [thread for thread in self._threads if thread.is_alive()]

    def _run_all(self) -> Iterator[dg.DagsterEvent]:
        happened: list[dg.DagsterEvent] = []
        while not self._active.is_complete or self._threads:
            # A slot that just came free gets its next step before anybody hears about the last one.
            self._start_ready_steps()
            yield from happened
            yield from self._active.concurrency_event_iterator(self._job_context)
            happened = [*self._drain_events(), *self._active.plan_events_iterator(self._job_context)]
            if self._stop.is_set():
                self._make_sure()
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
        for place, step in enumerate(self._active.get_steps_to_execute()):
            if not step.pool:
                # A step outside the pools collects, and loads: what it builds on is written, and no other run's.
                flush(self._job_context.instance)
                self._make_sure()
            elif place:
                time.sleep(START_APART_SECONDS)
            self._start(step)
        self._slots.free_spare()

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
            with stoppable(self._stop), self._turn(step):
                for event in _step_and_hook_events(self._job_context.for_step(step, known_state)):
                    reported = reported or _is_last_of_step(event)
                    self._step_events.put(event)
        except BaseException as raised:  # noqa: BLE001 the loop raises it, in its own thread
            error = raised
        self._step_events.put(ThreadEnded(threading.current_thread(), step.key, reported, error))

    def _turn(self, step: ExecutionStep) -> AbstractContextManager[None]:
        is_ours = _is_ours(self._job_context.job_def, step)
        return self._turns.our_step() if is_ours else self._turns.their_step(step.key)

    def _drain_events(self) -> Iterator[dg.DagsterEvent]:
        """Wait a tick for events, then take all there is."""
        try:
            events = [self._step_events.get(timeout=TICK_SECONDS)]
        except queue.Empty:
            return
        while not self._step_events.empty():
            events.append(self._step_events.get())
        for item in events:
            if isinstance(item, ThreadEnded):
                self._on_thread_end(item)
            else:
                if not item.is_hook_event:
                    self._active.handle_event(item)
                yield item

    def _on_thread_end(self, ended: ThreadEnded) -> None:
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
            yield from self._drain_events()
        self._patience = 0.0
        message = _cancel_message(sorted(self._threads.values()))
        yield dg.DagsterEvent.engine_event(self._job_context, message, EngineEventData())
        raise dg.DagsterExecutionInterruptedError(message)

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

    def _release_compute_logs(self, captures: ExitStack) -> Iterator[dg.DagsterEvent]:
        try:
            captures.close()
        except Exception:  # noqa: BLE001 as above
            yield from _handle_compute_log_teardown_error(self._job_context, sys.exc_info())


def _step_and_hook_events(step_context: StepExecutionContext) -> Iterator[dg.DagsterEvent]:
    events = []
    for event in dagster_event_sequence_for_step(step_context):
        events.append(event)
        yield event
    yield from _trigger_hook(step_context, events)


def _is_ours(job: dg.JobDefinition, step: ExecutionStep) -> bool:
    """Whether this package wrote what the step does."""
    compute = job.get_op(step.node_handle).definition.compute_fn
    return getattr(compute, "decorated_fn", compute).__module__.startswith(f"{_PACKAGE}.")


def _is_last_of_step(event: dg.DagsterEvent) -> bool:
    return event.is_step_success or event.is_step_failure or event.is_step_up_for_retry


def _snapshot(state: KnownExecutionState) -> KnownExecutionState:
    """The loop goes on adding to the set of ready outputs while the step's thread reads it."""
    return state._replace(ready_outputs=set(state.ready_outputs))


def _cancel_message(left_behind: list[str]) -> str:
    if not left_behind:
        return "The run was cancelled; its running steps have ended."
    return f"The run was cancelled; {len(left_behind)} steps did not end in time: {', '.join(left_behind)}."
