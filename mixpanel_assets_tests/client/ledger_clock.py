"""A clock that goes when told to, and requests that a ledger counts by it."""

import threading

from mixpanel_assets.client.quota import Account
from mixpanel_assets.client.rate_limits import RateLimits

URL = "https://mixpanel.com/api/query"


HOUR = 3600.0


MINUTE = 60.0


class Clock:
    """Time that passes when told to; as an Event, `wait` lets it pass."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.waits: list[float] = []

    def __call__(self) -> float:
        return self.now


class Stop(threading.Event):
    """A wish to stop that never comes; waiting for it lets the clock go on."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        self._clock.waits.append(timeout or 0.0)
        self._clock.now += timeout or 0.0
        return False


def spend(account: Account, requests: int) -> None:
    for _ in range(requests):
        account.take("page 0")


def refuse(account: Account) -> float:
    """A request that is answered with a 429 for the hour, without headers; for how long it blocks."""
    reservation = account.take("page 0")
    reservation.on_response(429, RateLimits())
    return reservation.on_refusal(None)
