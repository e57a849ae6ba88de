"""Turns of processes at a file that one of them opens at a time: a lock file beside it, held while its process lives.

So whoever holds DuckDB's own lock meanwhile is no sync of ours, and is named.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock, Timeout

from mixpanel_assets import private_files
from mixpanel_assets.errors import Cancelled
from mixpanel_assets.stopping import stop_requested

_TURN_POLL_SECONDS = 0.5


@dataclass
class _TurnOfProcess:
    """The lock file of one file, held while any thread of this process has it open."""

    lock: FileLock
    guard: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0


_processes: dict[Path, _TurnOfProcess] = {}
_guard = threading.Lock()


@contextmanager
def turn_of_process(
    path: Path, say: Callable[[str], None], at_the_end: Callable[[], None] = lambda: None
) -> Iterator[Callable[[], None]]:
    """No other process of ours has the file open meanwhile; threads of this one share the turn, which is not lost.

    Args:
        path: The file, there or not yet.
        say: Told, in a line, when another process is waited for.
        at_the_end: Called when the last of these threads is done, and nobody else has begun.

    Raises:
        Cancelled: the run was asked to stop meanwhile.
    """
    turn = _turn_at(Path(os.path.realpath(path)))
    with turn.guard:
        if not turn.users:
            _wait(path, turn.lock, say)
        turn.users += 1
    try:
        yield _nothing
    finally:
        with turn.guard:
            turn.users -= 1
            if not turn.users:
                at_the_end()
                turn.lock.release()


def _nothing() -> None:
    """The operating system keeps the lock until the file is closed."""


def _turn_at(file: Path) -> _TurnOfProcess:
    with _guard:
        lock = FileLock(file.with_name(f".{file.name}.lock"), mode=private_files.FILE_MODE, thread_local=False)
        return _processes.setdefault(file, _TurnOfProcess(lock))


def _wait(path: Path, lock: FileLock, say: Callable[[str], None]) -> None:
    told = False
    while True:
        try:
            lock.acquire(timeout=_TURN_POLL_SECONDS)
        except Timeout:
            if not told:
                say(f"another sync of ours works with {path}; waiting for it")
                told = True
            if stop_requested().is_set():
                raise Cancelled(f"cancelled while another sync worked with {path}") from None
        except (OSError, NotImplementedError):
            return  # A folder that cannot be written, or locks no file: DuckDB's own lock is left, or says why.
        else:
            return
