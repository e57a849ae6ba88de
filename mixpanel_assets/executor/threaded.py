"""The threaded executor: the steps of a run as threads of one process.

Belongs here: the executor that Dagster is given, and what surrounds a run. Does not belong here: the loop of a run
(step_threads.py), who may have a slot of a pool (slots.py), how events reach the disk (event_log.py), which runs are
alive (run_locks.py), how a step learns that it should stop (stopping.py).

Dagster has executors for one step at a time and for a process per step; a page of a second or two is worth neither.

This stands on private modules of Dagster (there is no other way to an executor that keeps retries, hooks and pools);
the tests' executor/test_contract.py says on which, and turns red when a new minor moves them. Another executor can
take its place: `build_defs(executor=...)`; run config then follows that executor's own schema.
"""

import gc
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from typing import Any, cast

import dagster as dg
from dagster._core.events import EngineEventData
from dagster._core.execution.api import ExecuteRunWithPlanIterable
from dagster._core.execution.context.system import PlanExecutionContext, PlanOrchestrationContext
from dagster._core.execution.context_creation_job import PlanExecutionContextManager
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.retries import RetryMode, get_retries_config
from dagster._core.executor.base import Executor

from mixpanel_assets.executor.endings import ended
from mixpanel_assets.executor.event_log import run_instance
from mixpanel_assets.executor.run_locks import RunLocks, locks_of
from mixpanel_assets.executor.slots import PoolSlots
from mixpanel_assets.executor.step_threads import StepThreads
from mixpanel_assets.pools import POOL_CEILINGS, POOL_LIMITS, of_all_projects


class ThreadedExecutor(Executor):
    """Runs a plan's steps as threads. `pool_limits`: pool name -> steps at a time, over all runs of an instance."""

    def __init__(
        self,
        retries: RetryMode,
        max_concurrent: int,
        pool_limits: Mapping[str, int],
        pool_ceilings: Mapping[str, int],
    ):
        self._retries = retries
        self._max_concurrent = max_concurrent
        self._pool_limits = pool_limits
        self._pool_ceilings = pool_ceilings

    @property
    def retries(self) -> RetryMode:
        return self._retries

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[dg.DagsterEvent]:
        """The events of the run's steps, each within a few tenths of a second of its happening."""
        started = time.monotonic()
        run_id = plan_context.run_id
        locks, stop = locks_of(plan_context.instance), threading.Event()
        yield _engine_event(plan_context, f"Running up to {self._max_concurrent} steps at a time as threads of process")
        with ExitStack() as held:
            make_sure = held.enter_context(locks.alive(run_id, stop)) if locks else _sure
            instance = held.enter_context(run_instance(plan_context.instance, run_id))
            held.enter_context(_imports_uncollected())
            succeeded = False
            held.callback(lambda: ended(run_id, succeeded=succeeded))
            failed = False
            for event in ExecuteRunWithPlanIterable(
                execution_plan=execution_plan,
                iterator=partial(self._run_steps, held, locks, stop, make_sure),
                execution_context_manager=self._prepared(plan_context, execution_plan, instance),
            ):
                failed = failed or event.is_failure
                yield event
            succeeded = not failed
        yield _engine_event(plan_context, f"Ran all steps in {time.monotonic() - started:.1f} s in process")

    def _prepared(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan, instance: dg.DagsterInstance
    ) -> PlanExecutionContextManager:
        """What brings the resources up before the first step, once for the run, and down after the last."""
        return PlanExecutionContextManager(
            job=plan_context.job,
            retry_mode=self._retries,
            execution_plan=execution_plan,
            run_config=plan_context.run_config,
            dagster_run=plan_context.dagster_run,
            instance=instance,
            raise_on_error=plan_context.raise_on_error,
            output_capture=plan_context.output_capture,
            step_dependency_config=self.step_dependency_config,
        )

    def _run_steps(
        self,
        held: ExitStack,
        locks: RunLocks | None,
        stop: threading.Event,
        make_sure: Callable[[], None],
        job_context: PlanExecutionContext,
        execution_plan: ExecutionPlan,
    ) -> Iterator[dg.DagsterEvent]:
        pools = {step.pool for step in execution_plan.steps if step.pool}
        limits, ceilings = of_all_projects(self._pool_limits, pools), of_all_projects(self._pool_ceilings, pools)
        slots = held.enter_context(PoolSlots(job_context.instance, job_context.dagster_run, limits, ceilings, locks))
        with execution_plan.start(
            retry_mode=self._retries,
            max_concurrent=self._max_concurrent,
            instance_concurrency_context=slots,
            step_dependency_config=self.step_dependency_config,
        ) as active:
            threads = StepThreads(job_context, active, slots, self._max_concurrent, stop, make_sure)
            try:
                yield from threads.run()
            finally:
                if left_behind := threads.alive():
                    _hold_until_ended(held.pop_all(), left_behind)


def _sure() -> None:
    """A run in memory cannot lose its lock."""


@contextmanager
def _imports_uncollected() -> Iterator[None]:
    """What imports left (some 130,000 objects with Dagster) is no work for the collector while steps run: a full
    collection takes 0.1 s in which no step goes on, and a run of 60 pages has a few.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _hold_until_ended(held: ExitStack, threads: Sequence[threading.Thread]) -> None:
    """A cancelled run keeps its slots and its lock while its last requests are under way: they count for Mixpanel.

    If the process ends before them, both are a dead run's.
    """

    def release() -> None:
        for thread in threads:
            thread.join()
        # The caller may have closed the instance; then whoever waits for a slot frees these.
        with suppress(Exception):
            held.close()

    threading.Thread(target=release, daemon=True).start()


def _engine_event(plan_context: PlanOrchestrationContext, message: str) -> dg.DagsterEvent:
    pid = os.getpid()
    return dg.DagsterEvent.engine_event(plan_context, f"{message} {pid}.", EngineEventData.in_process(pid))


def build_threaded_executor(
    pool_limits: Mapping[str, int], pool_ceilings: Mapping[str, int] | None = None
) -> dg.ExecutorDefinition:
    """An executor that knows the code location's own pools: pool name -> steps at a time.

    `pool_limits` hold until a person sets another limit on the instance, `pool_ceilings` (default: the limits) always.
    Run config: `execution.config.max_concurrent` (default: the sum of the ceilings, so that every pool can be full) and
    `execution.config.retries`, as in Dagster's executors. A run with fewer than one step at a time fails at its start.
    """

    ceilings = pool_limits if pool_ceilings is None else pool_ceilings

    @dg.executor(
        name="threaded",
        config_schema={
            "max_concurrent": dg.Field(
                int,
                default_value=max(1, sum(ceilings.values())),
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
        return ThreadedExecutor(retries, max_concurrent, pool_limits, ceilings)

    return threaded


threaded_executor = build_threaded_executor(POOL_LIMITS, POOL_CEILINGS)
