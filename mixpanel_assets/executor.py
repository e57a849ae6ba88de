"""The threaded executor: the steps of a run as threads of one process.

Belongs here: the loop that starts steps, hands their events on and ends the run. Does not belong here: who may have a
slot of a pool (pools.py), how events reach the disk (event_log.py), which runs are alive (run_locks.py).
"""

import contextvars
import os
import queue
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import dagster as dg
from dagster._core.events import EngineEventData
from dagster._core.execution.api import ExecuteRunWithPlanIterable
from dagster._core.execution.context.system import PlanExecutionContext, PlanOrchestrationContext
from dagster._core.execution.context_creation_job import PlanExecutionContextManager
from dagster._core.execution.plan.active import ActiveExecution
from dagster._core.execution.plan.execute_plan import _trigger_hook, dagster_event_sequence_for_step
from dagster._core.execution.plan.instance_concurrency_context import InstanceConcurrencyContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.plan.step import ExecutionStep
from dagster._core.execution.retries import RetryMode, get_retries_config
from dagster._core.executor.base import Executor

from mixpanel_assets.stopping import stoppable


@dataclass(frozen=True)
class Ended:
    step_key: str
    error: BaseException | None


class ThreadedExecutor(Executor):
    def __init__(self, retries: RetryMode, max_concurrent: int):
        self._retries = retries
        self._max_concurrent = max_concurrent

    @property
    def retries(self) -> RetryMode:
        return self._retries

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[dg.DagsterEvent]:
        yield dg.DagsterEvent.engine_event(
            plan_context,
            f"Executing steps as threads of process {os.getpid()}",
            EngineEventData.in_process(os.getpid()),
        )
        yield from ExecuteRunWithPlanIterable(
            execution_plan=execution_plan,
            iterator=self._run_steps,
            execution_context_manager=PlanExecutionContextManager(
                job=plan_context.job,
                retry_mode=self._retries,
                execution_plan=execution_plan,
                run_config=plan_context.run_config,
                dagster_run=plan_context.dagster_run,
                instance=plan_context.instance,
                raise_on_error=plan_context.raise_on_error,
                output_capture=plan_context.output_capture,
                step_dependency_config=self.step_dependency_config,
            ),
        )

    def _run_steps(self, job_context: PlanExecutionContext, execution_plan: ExecutionPlan) -> Iterator[dg.DagsterEvent]:
        events: queue.Queue[dg.DagsterEvent | Ended] = queue.Queue()
        stop = threading.Event()
        with (
            InstanceConcurrencyContext(job_context.instance, job_context.dagster_run) as slots,
            execution_plan.start(
                retry_mode=self._retries, max_concurrent=self._max_concurrent, instance_concurrency_context=slots
            ) as active,
            stoppable(stop),
        ):
            try:
                while not active.is_complete:
                    if active.check_for_interrupts():
                        raise dg.DagsterExecutionInterruptedError("stopped")
                    for step in active.get_steps_to_execute():
                        self._start(job_context, active, step, events)
                    yield from active.concurrency_event_iterator(job_context)
                    yield from self._take(job_context, active, events)
                    yield from active.plan_events_iterator(job_context)
            finally:
                stop.set()

    def _start(
        self,
        job_context: PlanExecutionContext,
        active: ActiveExecution,
        step: ExecutionStep,
        events: "queue.Queue[dg.DagsterEvent | Ended]",
    ) -> None:
        step_context = job_context.for_step(step, active.get_known_state())

        def work() -> None:
            error = None
            seen = []
            try:
                for event in dagster_event_sequence_for_step(step_context):
                    seen.append(event)
                    events.put(event)
                for event in _trigger_hook(step_context, seen):
                    events.put(event)
            except BaseException as raised:
                error = raised
            events.put(Ended(step.key, error))

        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(work,), name=step.key, daemon=True).start()

    def _take(
        self,
        job_context: PlanExecutionContext,
        active: ActiveExecution,
        events: "queue.Queue[dg.DagsterEvent | Ended]",
    ) -> Iterator[dg.DagsterEvent]:
        try:
            item = events.get(timeout=0.2)
        except queue.Empty:
            return
        if isinstance(item, Ended):
            active.verify_complete(job_context, item.step_key)
            if item.error:
                raise item.error
            return
        yield item
        if not item.is_hook_event:
            active.handle_event(item)


@dg.executor(
    name="threaded",
    config_schema={"max_concurrent": dg.Field(int, default_value=5), "retries": get_retries_config()},
    requirements=[],
)
def threaded_executor(init: dg.InitExecutorContext) -> Executor:
    return ThreadedExecutor(
        RetryMode.from_config(init.executor_config["retries"]), init.executor_config["max_concurrent"]
    )
