"""Mixpanel's limits: what runs at once, what started within the rolling window.

Belongs here: counting and refusing. Not here: the words of a 429 (replies.py), 429s on request (faults.py).
"""

import math
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from mixpanel_assets.sandbox.replies import Quota, Refused, plain_status, too_many_exports

# Exports are spaced by the client but arrive with the jitter of two machines: four starts that were meant for 1.00 s
# may come within 0.95 s, and refusing those would be a finding about the scheduler.
_SECOND = 0.9
_MINUTE = 60.0
_UNCOUNTED = (401, 402, 429)


@dataclass(frozen=True)
class Limits:
    """Per project. Only page 0 of a session counts unless count_session_pages; enforce=False only observes."""

    queries_per_hour: int = 60
    concurrent_queries: int = 5
    exports_per_hour: int = 60
    concurrent_exports: int = 100
    exports_per_second: float = 3
    schemas_per_minute: int = 5
    count_session_pages: bool = False
    enforce: bool = True
    window_seconds: float = 3600
    concurrency_wait: int = 10


@dataclass
class _Pool:
    running: int = 0
    counted: deque[float] = field(default_factory=deque)
    starts: deque[float] = field(default_factory=deque)


class RateLimiter:
    """Lets requests in, or raises Refused. One pool for queries, one for exports. Thread-safe."""

    def __init__(self, limits: Limits, project_id: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.limits = limits
        self._clock = clock
        self._project_id = project_id
        self._lock = threading.Lock()
        queries = _Pool()
        self._pools = {"engage": queries, "engage/properties": queries, "cohorts/list": queries, "export": _Pool()}
        self._pools["schemas"] = _Pool()

    def enter(self, endpoint: str, request: str, *, counted: bool) -> None:
        """Let a request in; every success must be followed by one `leave`. What has no pool is not limited."""
        if endpoint not in self._pools:
            return
        now = self._clock()
        with self._lock:
            pool = self._pools[endpoint]
            _forget_before(pool.counted, now - self.limits.window_seconds)
            _forget_before(pool.starts, now - (_MINUTE if endpoint == "schemas" else _SECOND))
            if self.limits.enforce:
                self._check(endpoint, pool, now, request, counted=counted)
            pool.running += 1
            pool.starts.append(now)
            if counted:
                pool.counted.append(now)

    def leave(self, endpoint: str, status: int, *, counted: bool) -> None:
        """401, 402 and 429 are given back, as Mixpanel's own client assumes."""
        if endpoint not in self._pools:
            return
        with self._lock:
            pool = self._pools[endpoint]
            pool.running -= 1
            if counted and status in _UNCOUNTED and pool.counted:
                pool.counted.pop()

    def quota(self, endpoint: str) -> Quota:
        limits, pool = self.limits, self._pools.get(endpoint, _Pool())
        export = endpoint == "export"
        return Quota(
            self._project_id,
            limits.exports_per_hour if export else limits.queries_per_hour,
            math.ceil(limits.window_seconds),
            len(pool.counted),
            limits.concurrent_exports if export else limits.concurrent_queries,
            pool.running,
        )

    def clear(self) -> None:
        """Forget what was counted, not what is running."""
        with self._lock:
            for pool in self._pools.values():
                pool.counted.clear()
                pool.starts.clear()

    def _check(self, endpoint: str, pool: _Pool, now: float, request: str, *, counted: bool) -> None:
        if endpoint == "schemas":
            if len(pool.starts) >= self.limits.schemas_per_minute:
                raise Refused(plain_status(429, request))
            return
        quota = self.quota(endpoint)
        if pool.running >= quota.concurrent:
            wait = self.limits.concurrency_wait
            raise Refused(too_many_exports() if endpoint == "export" else quota.over_concurrency(wait, request))
        if counted and len(pool.counted) >= quota.per_window:
            oldest = pool.counted[0] if pool.counted else now
            raise Refused(quota.over_window(math.ceil(oldest + self.limits.window_seconds - now), request))
        if endpoint == "export" and len(pool.starts) >= self.limits.exports_per_second:
            raise Refused(too_many_exports(1))


def _forget_before(times: deque[float], moment: float) -> None:
    while times and times[0] <= moment:
        times.popleft()
