"""Locks of runs as files of one machine.

Belongs here: a lock file per running run. Does not belong here: what becomes of a dead run (run_locks.py).

The operating system drops a file lock when its process ends, however it ends. So a lock file that anybody can lock
belongs to a dead run; process ids, which are given out again, play no part, nor do host names, which change with every
container. Hosts that share the folder must see each other's locks, as they must for Dagster's SQLite files beside it.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dagster import DagsterInstance
from filelock import FileLock, Timeout

from mixpanel_assets import private_files
from mixpanel_assets.executor.run_locks import RunLocks, fail_and_release

# The gate is held for milliseconds; a minute means something is broken and should be said.
GATE_SECONDS = 60.0


class LockFiles(RunLocks):
    """The lock files of an instance's runs, in a folder beside its storage."""

    def __init__(self, folder: Path):
        self._folder = folder
        private_files.make_folder(folder)

    @classmethod
    def of(cls, instance: DagsterInstance) -> "LockFiles":
        """The locks of an instance with a folder."""
        return cls(Path(instance.root_directory) / "run_locks")

    @contextmanager
    def alive(self, run_id: str, stop: threading.Event) -> Iterator[Callable[[], None]]:
        """Hold the run's lock inside this block; the system takes it from nobody who lives."""
        lock = _lock(self._path(run_id))
        with self._gate():
            lock.acquire(timeout=0)
        try:
            yield lambda: None
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

    def may_live(self, run_id: str) -> bool:
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
