"""Which runs of this machine are alive, and the end of those that died without a word.

Belongs here: a lock file per running run, and what becomes of a run whose lock nobody holds. Does not belong here: who
gets a freed slot (slots.py).

The operating system drops a file lock when its process ends, however it ends. So a lock file that anybody can lock
belongs to a dead run; process ids, which are given out again, play no part, nor do host names, which change with every
container. Hosts that share the folder must see each other's locks, as they must for Dagster's SQLite files beside it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dagster import DagsterInstance, DagsterRunStatus
from filelock import FileLock, Timeout

from mixpanel_assets import private_files

# The gate is held for milliseconds; a minute means something is broken and should be said.
GATE_SECONDS = 60.0


class RunLocks:
    """The lock files of an instance's runs, in a folder beside its storage."""

    def __init__(self, folder: Path):
        self._folder = folder
        private_files.make_folder(folder)

    @classmethod
    def of(cls, instance: DagsterInstance) -> "RunLocks | None":
        """The locks of this instance; none for an instance in memory, whose runs end with it."""
        return cls(Path(instance.root_directory) / "run_locks") if instance.is_persistent else None

    @contextmanager
    def alive(self, run_id: str) -> Iterator[None]:
        """Hold the run's lock inside this block."""
        lock = _lock(self._path(run_id))
        with self._gate():
            lock.acquire(timeout=0)
        try:
            yield
        finally:
            with self._gate():
                _remove(lock)

    def fail_dead_runs(self, instance: DagsterInstance) -> list[str]:
        """Free the slots of every run whose process is gone, and report it failed. Returns their ids.

        A lock that can be taken is held until the run's slots are free, so two runs never report the same one.
        """
        failed = []
        with self._gate():
            for path in self._folder.glob("*.lock"):
                lock = _lock(path)
                try:
                    lock.acquire(timeout=0)
                except Timeout:
                    continue
                run_id = path.stem
                fail_and_release(instance, run_id)
                _remove(lock)
                failed.append(run_id)
        return failed

    def has_lock_file(self, run_id: str) -> bool:
        """Whether the run left or holds a lock file here."""
        return self._path(run_id).exists()

    def _gate(self) -> FileLock:
        # A new run makes its file and locks it behind this gate, so that nobody finds the file before the lock.
        return FileLock(self._folder / "gate", timeout=GATE_SECONDS, mode=private_files.FILE_MODE)

    def _path(self, run_id: str) -> Path:
        return self._folder / f"{run_id}.lock"


def _lock(path: Path) -> FileLock:
    # Released by whichever thread ends the run, so not bound to the one that took it.
    return FileLock(path, thread_local=False, mode=private_files.FILE_MODE)


def _remove(lock: FileLock) -> None:
    """Release and delete; only behind the gate, as between the two the file looks like a dead run's."""
    lock.release()
    Path(lock.lock_file).unlink(missing_ok=True)


def fail_dead_runs(instance: DagsterInstance) -> list[str]:
    """Free the slots of runs whose process is gone, and report them failed. Returns their run ids.

    A run does so by itself when it starts or waits. Dagster's run queue needs somebody to do it before: it holds back a
    run as long as the pool of its first op is full, so that a full pool of dead runs would keep all others queued.
    """
    locks = RunLocks.of(instance)
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
