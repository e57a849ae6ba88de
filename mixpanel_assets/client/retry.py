"""When to send a request again, and how long to wait first: the one layer that decides it.

Steps and runs of Dagster retry nothing on top of this. Only TransientError is retried. A wait that the server asks for
is never undercut: one longer than `max_wait_seconds` ends the attempts instead.
"""

import dataclasses
import datetime
import logging
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import tenacity

from mixpanel_assets.client.http import UnreachableError
from mixpanel_assets.client.quota import NotSentError
from mixpanel_assets.client.served_days import KnownRefusalError
from mixpanel_assets.errors import Cancelled, MixpanelError, QuotaError, TransientError

T = TypeVar("T")

# A host that was never reached is more often a typo than an outage: three quick attempts, and say so.
_UNREACHABLE_ATTEMPTS = 3
_UNREACHABLE_HASTE = 0.25


@dataclass(frozen=True)
class RetryPolicy:
    """Exponential backoff with jitter.

    Attributes:
        max_attempts: Requests sent for one page or chunk at the most, the first included.
        base_seconds: The first wait; each further one doubles. Up to half of it again is added at random.
        max_backoff_seconds: Longest wait of our own choice.
        max_wait_seconds: Longest wait that is obeyed when the server asks for it; beyond it, no further attempt is
        made.
        waits_for_quota: Whether a spent hour is waited out, however long that takes.
    """

    max_attempts: int = 5
    base_seconds: float = 2.0
    max_backoff_seconds: float = 60.0
    max_wait_seconds: float = 120.0
    waits_for_quota: bool = False


@dataclass(frozen=True)
class Attempt:
    """One request: its times in UTC, and its error if it failed. `wait_seconds` is the pause that followed."""

    started_at: datetime.datetime
    ended_at: datetime.datetime
    error: str | None = None
    wait_seconds: float = 0.0


class Retrier:
    """Calls a function until it succeeds or the policy says stop, and remembers each attempt that sent a request.

    `counted_requests` is for the caller's use: how many of them went against the hourly quota.

    Args:
        policy: How often and how long.
        stop: Set when the run is asked to end; a wait ends at once then.
        log: Told of each failed attempt and the wait that follows.
    """

    def __init__(self, policy: RetryPolicy, stop: threading.Event, log: logging.Logger) -> None:
        self._policy = policy
        self._stop = stop
        self._log = log
        self._is_last = False
        self.attempts: list[Attempt] = []
        self.counted_requests = 0

    def call(self, function: Callable[[], T]) -> T:
        """The function's result.

        Raises:
            MixpanelError: the last attempt's error.
            Cancelled: the run was asked to end.
        """
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(TransientError),
            wait=self._wait_seconds,
            stop=self._is_over,
            sleep=self._sleep,
            before_sleep=self._note_wait,
            reraise=True,
        )
        while True:
            try:
                result: T = retrying(self._attempt, function)
                return result
            except QuotaError as error:
                if self._is_last or not self._policy.waits_for_quota or error.retry_after is None:
                    raise
                wait = max(error.retry_after, self._policy.base_seconds)
                self._log.warning(f"{error}; waiting {wait:.0f} s")
                self._sleep(wait)

    def may_ask_once_more(self, doubt: str) -> bool:
        """Whether an answer that is good in form, and may yet be a fault, can be asked for again: once, after the first
        wait, and whatever comes of that is the last. `doubt` says why, in one line.

        Raises:
            Cancelled: the run was asked to end.
        """
        if self._is_last or len(self.attempts) >= self._policy.max_attempts:
            return False
        self._is_last = True
        wait = self._policy.base_seconds + random.uniform(0, self._policy.base_seconds / 2)
        self.attempts[-1] = dataclasses.replace(self.attempts[-1], error=doubt, wait_seconds=round(wait, 3))
        self._log.warning(f"{doubt}; asked for once more in {wait:.1f} s")
        self._sleep(wait)
        return True

    def _attempt(self, function: Callable[[], T]) -> T:
        if self._stop.is_set():
            raise Cancelled("cancelled before the request was sent")
        started_at = datetime.datetime.now(datetime.timezone.utc)
        error: str | None = None
        sent = True
        try:
            return function()
        except MixpanelError as failure:
            error, sent = str(failure), not isinstance(failure, (NotSentError, KnownRefusalError))
            raise
        finally:
            if sent:
                self.attempts.append(Attempt(started_at, datetime.datetime.now(datetime.timezone.utc), error))

    def _wait_seconds(self, state: tenacity.RetryCallState) -> float:
        backoff = tenacity.wait_exponential(multiplier=self._policy.base_seconds, max=self._policy.max_backoff_seconds)
        jitter = tenacity.wait_random(0, self._policy.base_seconds / 2)
        haste = _UNREACHABLE_HASTE if isinstance(_error(state), UnreachableError) else 1.0
        return max(_asked(state), haste * backoff(state)) + haste * jitter(state)

    def _is_over(self, state: tenacity.RetryCallState) -> bool:
        unreachable = isinstance(_error(state), UnreachableError)
        most = min(_UNREACHABLE_ATTEMPTS, self._policy.max_attempts) if unreachable else self._policy.max_attempts
        return self._is_last or state.attempt_number >= most or _asked(state) > self._policy.max_wait_seconds

    def _note_wait(self, state: tenacity.RetryCallState) -> None:
        last = self.attempts[-1]
        wait = state.upcoming_sleep
        self.attempts[-1] = Attempt(last.started_at, last.ended_at, last.error, round(wait, 3))
        self._log.warning(
            f"{last.error}; attempt {state.attempt_number} of {self._policy.max_attempts}, again in {wait:.1f} s"
        )

    def _sleep(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise Cancelled("cancelled while waiting to try again")


def _error(state: tenacity.RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


def _asked(state: tenacity.RetryCallState) -> float:
    error = _error(state)
    return error.retry_after or 0.0 if isinstance(error, TransientError) else 0.0
