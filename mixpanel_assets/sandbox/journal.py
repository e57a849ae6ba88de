"""What was asked and answered: one row per request, and how many were in flight together.

Belongs here: records. Not here: limits (limits.py). A request counts as in flight from when it was read until just
before the last byte of its answer leaves; a client that starts its next request on receipt is thus never counted twice.
"""

import itertools
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class Request:
    """One finished request. started and ended are monotonic seconds; status 0: dropped without an answer; size counts
    the body's bytes as sent; in_flight counts this request too; `rows` are those of the undamaged answer."""

    number: int
    endpoint: str
    method: str
    params: Mapping[str, str]
    page: int | None
    session_id: str | None
    from_date: str | None
    to_date: str | None
    started: float
    ended: float
    status: int
    rows: int
    size: int
    fault: str | None
    in_flight: int


@dataclass(frozen=True)
class Arrival:
    """A request on its way: its number, when it came, how many were in flight with it."""

    number: int
    endpoint: str
    started: float
    in_flight: int


class Journal:
    """Thread-safe. Rows appear when the answer is about to be complete, in that order."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._rows: list[Request] = []
        self._running: dict[str, int] = {}
        self._peak: dict[str, int] = {}
        self._starts: dict[str, list[float]] = {}

    @property
    def requests(self) -> list[Request]:
        with self._lock:
            return list(self._rows)

    @property
    def bytes_served(self) -> int:
        return sum(row.size for row in self.requests)

    def max_in_flight(self, endpoint: str) -> int:
        """The most requests of "engage" or "export" that were in flight together, refused ones included."""
        with self._lock:
            return self._peak.get(endpoint, 0)

    def count(self, endpoint: str | None = None, status: int | None = None) -> int:
        return sum(
            (endpoint is None or row.endpoint == endpoint) and (status is None or row.status == status)
            for row in self.requests
        )

    def starts(self, endpoint: str) -> list[float]:
        """Monotonic seconds at which requests came in, in order, unfinished ones included."""
        with self._lock:
            return list(self._starts.get(endpoint, []))

    def clear(self) -> None:
        """Forget what is finished; what is in flight stays counted as such."""
        with self._lock:
            self._rows.clear()
            self._starts.clear()
            self._peak = dict(self._running)

    def to_dict(self) -> dict[str, object]:
        """All of it, JSON-ready."""
        return {
            "requests": [asdict(row) for row in self.requests],
            "max_in_flight": {endpoint: self.max_in_flight(endpoint) for endpoint in ("engage", "export")},
            "starts": {endpoint: self.starts(endpoint) for endpoint in ("engage", "export")},
            "bytes_served": self.bytes_served,
        }

    def arrive(self, endpoint: str) -> Arrival:
        with self._lock:
            running = self._running[endpoint] = self._running.get(endpoint, 0) + 1
            self._peak[endpoint] = max(running, self._peak.get(endpoint, 0))
            started = time.monotonic()
            self._starts.setdefault(endpoint, []).append(started)
            return Arrival(next(self._numbers), endpoint, started, running)

    def leave(self, request: Request) -> None:
        with self._lock:
            self._running[request.endpoint] -= 1
            self._rows.append(request)
