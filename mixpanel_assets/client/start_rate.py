"""How often requests may start, such as three exports within a second, over all processes that share the notes of it.

Belongs here: spacing the starts of requests. Does not belong here: how many run at once (pools.py) and how many an hour
allows (quota.py).

Whoever wants to start waits in line behind a lock, looks at when the last few started, goes, and writes down when it
has gone. Real starts are recorded, not booked ones, and no other starts meanwhile: a thread that wakes late, or is put
aside amid its start, never crowds the next.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from mixpanel_assets import private_files
from mixpanel_assets.errors import Cancelled, ConfigurationError

MOST_STARTS = 3
# A little more than the second that Mixpanel counts: requests arrive with the jitter of both machines. Of 141 starts of
# three processes on two cores under a load of 11, no fourth came before 1.085 s; of 140 under one of 19, before 1.032.
WINDOW_SECONDS = 1.1
# Of the schemas of Lexicon Mixpanel answers five requests a minute, for all projects of an organisation together.
MOST_SCHEMA_STARTS = 5
SCHEMA_WINDOW_SECONDS = 61.0
_MOST_LATE_SECONDS = 0.5
_LOCK_POLL_SECONDS = 0.02
_CANCEL_POLL_SECONDS = 0.5


class StartRate:
    """At most so many starts within so many seconds, by default three within one. Safe to share between threads.

    Args:
        kept: File where starts are written down for other processes to see; None: this process alone; or a place
            that has a clock of its own.
        clock: Wall clock in seconds, the one that processes share.
        most: Starts.
        seconds: Within these, with something on top for the jitter of both machines.
    """

    def __init__(
        self,
        kept: "Path | StartNotes | None" = None,
        clock: Callable[[], float] = time.time,
        most: int = MOST_STARTS,
        seconds: float = WINDOW_SECONDS,
    ) -> None:
        self._most, self._seconds = most, seconds
        self._notes = _StartsFile(kept, clock, most) if kept is None or isinstance(kept, Path) else kept
        self._clock = self._notes.clock
        self._turn = threading.Lock()

    @contextmanager
    def turn(self, stop: threading.Event) -> Iterator[None]:
        """The block in which a request may start.

        Raises:
            Cancelled: `stop` was set before.
            ConfigurationError: the file cannot be used.
        """
        with self._turn, self._notes.alone(stop):
            starts = self._notes.read()
            # A clock that was set back must not make anybody wait for the future.
            waited_for = starts[-self._most] if len(starts) >= self._most else 0.0
            began = self._clock()
            wait = min(waited_for + self._seconds - began, self._seconds + _MOST_LATE_SECONDS)
            if (wait > 0 and stop.wait(wait)) or stop.is_set():
                raise Cancelled("cancelled while waiting for a turn to ask")
            # A machine that is so busy that it wakes us late may let the request arrive as late.
            late = min(max(0.0, self._clock() - began - wait), _MOST_LATE_SECONDS) if wait > 0 else 0.0
            # Noted before too, for a process that is killed between.
            self._notes.write([*starts, self._clock() + late][-self._most :])
            try:
                yield
            finally:
                self._notes.write([*starts, self._clock() + late][-self._most :])


class StartNotes(Protocol):
    """The last starts, where all who keep to a rate see them; read and written by whoever is alone."""

    def clock(self) -> float:
        """Seconds since the epoch."""

    def alone(self, stop: threading.Event) -> AbstractContextManager[None]:
        """A block in which nobody else starts."""

    def read(self) -> list[float]:
        """The last starts, the latest last."""

    def write(self, starts: list[float]) -> None:
        """Keep these in their place."""


class _StartsFile:
    """A file that processes share, or none."""

    def __init__(self, file: Path | None, clock: Callable[[], float], most: int) -> None:
        self.clock = clock
        self._file = file
        self._most = most
        self._starts: list[float] = []

    @contextmanager
    def alone(self, stop: threading.Event) -> Iterator[None]:
        if self._file is None:
            yield
            return
        lock = FileLock(self._file.with_suffix(".lock"), mode=private_files.FILE_MODE)
        with _usable(self._file):
            private_files.make_folder(self._file.parent)
            while not _acquired(lock):
                if stop.is_set():
                    raise Cancelled("cancelled while waiting for a turn to ask")
        try:
            yield
        finally:
            lock.release()

    def read(self) -> list[float]:
        if self._file is None:
            return self._starts
        try:
            with _usable(self._file):
                return [float(start) for start in json.loads(self._file.read_text(encoding="utf-8"))]
        except FileNotFoundError:
            return []
        except (ValueError, TypeError):  # A process was killed while it wrote: a moment ago, for all that is known.
            return [self.clock()] * self._most

    def write(self, starts: list[float]) -> None:
        if self._file is None:
            self._starts = starts
        else:
            with _usable(self._file):
                private_files.write(self._file, json.dumps(starts).encode())


def schema_starts(kept: Path | StartNotes | None = None, clock: Callable[[], float] = time.time) -> StartRate:
    """How often the schemas of Lexicon may be asked for."""
    return StartRate(kept, clock, MOST_SCHEMA_STARTS, SCHEMA_WINDOW_SECONDS)


def _acquired(lock: FileLock) -> bool:
    try:
        lock.acquire(timeout=_CANCEL_POLL_SECONDS, poll_interval=_LOCK_POLL_SECONDS)
    except Timeout:
        return False
    return True


@contextmanager
def _usable(file: Path) -> Iterator[None]:
    """A full or forbidden disk as one line; else it would be taken for a fault of the network."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigurationError(
            f"cannot use {file} ({error.strerror}): free space, or set DAGSTER_HOME to a folder that can be written"
        ) from None
