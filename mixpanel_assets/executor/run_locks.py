"""Which runs are alive, and the end of those that died without a word.

Belongs here: what a lock of a run is, whatever it is made of, and what becomes of a run whose lock nobody holds. Does
not belong here: locks as files of one machine (lock_files.py) and as sessions of Postgres (lock_sessions.py), who gets
a freed slot (slots.py).
"""

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager

from dagster import DagsterInstance, DagsterRunStatus

from mixpanel_assets.postgres import is_postgres


class RunLocks(ABC):
    """The locks of an instance's runs: a process holds that of its run, and lets go of it however it ends."""

    @abstractmethod
    def alive(self, run_id: str, stop: threading.Event) -> AbstractContextManager[Callable[[], None]]:
        """Hold the run's lock inside the block.

        Should it be lost meanwhile, `stop` is set: from then on others may take the run for dead. The block gets a
        function that raises `InstanceError` in this case, for what must not happen twice; it may take seconds, until it
        is sure.
        """

    @abstractmethod
    def fail_dead_runs(self, instance: DagsterInstance) -> list[str]:
        """Free the slots of every run whose process is gone, and report it failed. Returns their ids."""

    @abstractmethod
    def may_live(self, run_id: str) -> bool:
        """Whether a process works for the run, as far as is known since the dead were last failed."""


def locks_of(instance: DagsterInstance) -> RunLocks | None:
    """The locks of this instance; none for an instance in memory, whose runs end with it."""
    if is_postgres(instance.event_log_storage):
        from mixpanel_assets.executor.lock_sessions import LockSessions

        return LockSessions.of(instance.event_log_storage)
    if instance.is_persistent:
        from mixpanel_assets.executor.lock_files import LockFiles

        return LockFiles.of(instance)
    return None


def fail_dead_runs(instance: DagsterInstance) -> list[str]:
    """Free the slots of runs whose process is gone, and report them failed. Returns their run ids.

    A run does so by itself when it starts or waits. Dagster's run queue needs somebody to do it before: it holds back a
    run as long as the pool of its first op is full, so that a full pool of dead runs would keep all others queued.
    """
    locks = locks_of(instance)
    return locks.fail_dead_runs(instance) if locks else []


def fail_and_release(instance: DagsterInstance, run_id: str) -> None:
    """Free every slot and claim of a dead run; report it, if it still shows as running."""
    instance.event_log_storage.free_concurrency_slots_for_run(run_id)
    run = instance.get_run_by_id(run_id)
    if run is None or run.is_finished:
        return
    message = "The run's process ended without a word (killed, out of memory, or the machine went down)."
    if run.status == DagsterRunStatus.CANCELING:
        instance.report_run_canceled(run, message)
    else:
        instance.report_run_failed(run, message)
