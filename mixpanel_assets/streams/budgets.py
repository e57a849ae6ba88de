"""Whether a sync fits into what is left of Mixpanel's hour, and what happens if it does not.

Belongs here: the comparison, its words, and the choice to stop or to wait. Does not belong here: the count itself
(client/quota.py) and how many requests a sync makes.
"""

import logging
import time
from dataclasses import dataclass

from mixpanel_assets.client.quota import Account
from mixpanel_assets.errors import ConfigurationError, QuotaError
from mixpanel_assets.results import Result

STOP, WAIT = "stop", "wait"


@dataclass(frozen=True)
class Budget(Result):
    """What a sync needs of the hour.

    Attributes:
        requests: Requests it makes.
        counted_requests: Those that count against the hour.
        left: Counted requests that may go out now.
        hourly_limit: Counted requests of an hour.
        limit_learned: Whether Mixpanel named that limit; if not, it is a setting's or the documented one.
        asks: Whether the hour is spent by our count alone, so that Mixpanel is asked.
        wait_seconds: Until the last of them may go out; 0: all may go now.
    """

    requests: int
    counted_requests: int
    left: int
    hourly_limit: int
    limit_learned: bool
    asks: bool
    wait_seconds: float

    @property
    def fits(self) -> bool:
        """Whether nothing has to wait."""
        return self.wait_seconds <= 0

    @property
    def words(self) -> str:
        """In a line."""
        line = f"{self.requests} requests, {self.counted_requests} of them counted: "
        line += f"{self.left} of the hour's {self.hourly_limit} are left"
        if self.fits:
            return line
        at = time.strftime("%H:%M UTC", time.gmtime(time.time() + self.wait_seconds))
        return f"{line}, and the last can go out in {self.wait_seconds:.0f} s ({at})"


def budget(account: Account, requests: int, *, session_pages: bool = False) -> Budget:
    """What so many requests need; `session_pages`: they belong to an open session, which Mixpanel may not count."""
    counted = 0 if session_pages and not account.session_pages_count() else requests
    quota = account.quota()
    return Budget(
        requests=requests,
        counted_requests=counted,
        left=quota.left,
        hourly_limit=quota.limit,
        limit_learned=quota.learned,
        asks=quota.left == 0 and quota.may_ask,
        wait_seconds=round(quota.wait_for(counted), 1) if counted else 0.0,
    )


def check_choice(on_quota: str) -> None:
    """Refuse a setting that is neither.

    Raises:
        ConfigurationError: one line that names it.
    """
    if on_quota not in (STOP, WAIT):
        raise ConfigurationError(f"on_quota must be {STOP} or {WAIT}, not {on_quota!r}")


def enforce(budget: Budget, on_quota: str, log: logging.Logger) -> None:
    """Say what is needed; stop a sync that does not fit, if that is the choice.

    Raises:
        QuotaError: it does not fit.
    """
    if budget.fits:
        log.info(budget.words)
    elif budget.asks:
        log.warning(f"{budget.words}, if Mixpanel allows no more: it is asked")
    elif on_quota == WAIT:
        log.warning(f"{budget.words}; waiting for it")
    else:
        raise QuotaError(f"{budget.words}; stopped: sync later, or with on_quota={WAIT}", budget.wait_seconds)


# From here on a sync is worth a warning: little is left of the hour for anything else.
WARN_SHARE = 0.8


def quota_warning(pages: int, hourly_limit: int) -> str | None:
    """A word of warning when a sync of so many pages would use most of the hourly quota, if each page counted."""
    if pages < WARN_SHARE * hourly_limit:
        return None
    share = pages / hourly_limit
    return (
        f"{pages} pages are {share:.0%} of the hourly quota of {hourly_limit} queries, should Mixpanel count them all"
    )
