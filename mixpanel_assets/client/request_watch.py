"""Ends requests from outside: those whose deadline has passed, and those of a run that is to end.

A timeout of the socket only bounds the silence between two bytes, so a server that sends a byte now and then holds a
request for ever, amid the headers as well as amid the body. Here one thread shuts the connections of such requests
down, whatever they wait for: the connection, the handshake, the headers, the body.
"""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar

_TICK_SECONDS = 0.2


class RequestWatch:
    """One request under way. `is_late` and `is_cancelled` tell why it was ended, if it was."""

    def __init__(self, deadline_seconds: float, stop: threading.Event) -> None:
        self._ends_at = time.monotonic() + deadline_seconds
        self._stop = stop
        self._lock = threading.Lock()
        self._connection: socket.socket | None = None
        self.is_late = self.is_cancelled = False

    @contextmanager
    def begin(self) -> Iterator[None]:
        """Watch; connections that this thread makes or takes within the block are those of the request."""
        token = _current.set(self)
        _watchman.add(self)
        try:
            yield
        finally:
            _current.reset(token)

    def hold(self, connection: socket.socket) -> None:
        """Take a connection as that of the request: by a handle of our own, which no TLS and no pool takes away."""
        with self._lock:
            self._drop()
            self._connection = socket.fromfd(connection.fileno(), connection.family, connection.type)
            if self.is_late or self.is_cancelled:
                self._shut_down()

    def look(self) -> None:
        """End the request if that is due."""
        late, cancelled = time.monotonic() > self._ends_at, self._stop.is_set()
        with self._lock:
            if (late or cancelled) and not (self.is_late or self.is_cancelled):
                self.is_late, self.is_cancelled = late and not cancelled, cancelled
                self._shut_down()

    def end(self) -> None:
        """Watch no longer."""
        _watchman.remove(self)
        with self._lock:
            self._drop()

    def _shut_down(self) -> None:
        if self._connection is not None:
            with suppress(OSError):
                self._connection.shutdown(socket.SHUT_RDWR)

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class _Watchman:
    """Looks at all requests under way, from a thread that lives while there are any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._watched: set[RequestWatch] = set()
        self._is_up = False

    def add(self, watch: RequestWatch) -> None:
        with self._lock:
            self._watched.add(watch)
            if not self._is_up:
                self._is_up = True
                threading.Thread(target=self._run, name="mixpanel-request-watch", daemon=True).start()

    def remove(self, watch: RequestWatch) -> None:
        with self._lock:
            self._watched.discard(watch)

    def _run(self) -> None:
        while True:
            with self._lock:
                watched = list(self._watched)
                if not watched:
                    self._is_up = False
                    return
            for watch in watched:
                watch.look()
            del watched
            time.sleep(_TICK_SECONDS)


_watchman = _Watchman()
_current: ContextVar[RequestWatch | None] = ContextVar("mixpanel_request_watch", default=None)


def hold(connection: socket.socket | None) -> None:
    """Take a connection as that of the request that this thread has begun."""
    watch = _current.get()
    if watch is not None and connection is not None:
        watch.hold(connection)
