"""How often exports may start: three within a second, over all processes that share a file.

Belongs here: spacing the starts of requests. Does not belong here: how many run at once (pools.py) and how many an hour
allows (quota.py).

Whoever wants to start waits in line behind a lock, looks at when the last three started, and writes down its own start
just before it goes. Real starts are recorded, not booked ones: a thread that wakes late never crowds the next.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from mixpanel_assets import private_files
from mixpanel_assets.errors import Cancelled

MOST_STARTS = 3
# A little more than the second that Mixpanel counts: requests arrive with the jitter of both machines, 15 to 45 ms on
# a busy machine and loopback.
WINDOW_SECONDS = 1.05
_LOCK_POLL_SECONDS = 0.02
_CANCEL_POLL_SECONDS = 0.5


class StartRate:
    """At most three starts within a second. Safe to share between threads.

    Args:
        file: Where starts are written down for other processes to see; None: this process alone.
        clock: Wall clock in seconds, the one that processes share.
    """

    def __init__(self, file: Path | None = None, clock: Callable[[], float] = time.time) -> None:
        self._file = file
        self._clock = clock
        self._turn = threading.Lock()
        self._starts: list[float] = []

    def wait_for_turn(self, stop: threading.Event) -> None:
        """Return when a request may start.

        Raises:
            Cancelled: `stop` was set meanwhile.
        """
        with self._turn, self._alone(stop):
            starts = self._read()
            # A clock that was set back must not make anybody wait for the future.
            waited_for = starts[-MOST_STARTS] if len(starts) >= MOST_STARTS else 0.0
            wait = min(waited_for + WINDOW_SECONDS - self._clock(), WINDOW_SECONDS)
            if (wait > 0 and stop.wait(wait)) or stop.is_set():
                raise Cancelled("cancelled while waiting for a turn to ask")
            self._write([*starts, self._clock()][-MOST_STARTS:])

    @contextmanager
    def _alone(self, stop: threading.Event) -> Iterator[None]:
        if self._file is None:
            yield
            return
        private_files.make_folder(self._file.parent)
        lock = FileLock(self._file.with_suffix(".lock"), mode=private_files.FILE_MODE)
        while True:
            try:
                lock.acquire(timeout=_CANCEL_POLL_SECONDS, poll_interval=_LOCK_POLL_SECONDS)
                break
            except Timeout:
                if stop.is_set():
                    raise Cancelled("cancelled while waiting for a turn to ask") from None
        try:
            yield
        finally:
            lock.release()

    def _read(self) -> list[float]:
        if self._file is None:
            return self._starts
        try:
            return [float(start) for start in json.loads(self._file.read_text(encoding="utf-8"))]
        except (FileNotFoundError, ValueError, TypeError):
            return []

    def _write(self, starts: list[float]) -> None:
        if self._file is None:
            self._starts = starts
        else:
            private_files.write(self._file, json.dumps(starts).encode())
