"""What a response says about limits: the RateLimit headers and the texts of a 429, read once, here.

Mixpanel has two limits that answer 429 and heal at different speeds: queries in flight (seconds) and queries in the
rolling hour (up to an hour). Counting against them is quota.py's; waiting is retry.py's.

Source: Mixpanel's published rate limits, and the header shapes `"project";r=0;t=3600, "project-concurrency";r=3`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

DEFAULT_WINDOW_SECONDS = 3600.0
# Beyond these a header makes no sense. Ten thousand are nearly three a second, all that Mixpanel's exports take.
_MOST_REQUESTS = 10_000
_LONGEST_WINDOW_SECONDS = 24 * 3600
_ITEM = re.compile(r'"(?P<policy>[^"]+)"(?P<parameters>(?:;\s*\w+=[^;,]*)*)')
_PARAMETER = re.compile(r";\s*(\w+)=([^;,]*)")
_NUMBER = re.compile(r"[0-9]{1,9}")
_IN_LAST_HOUR = re.compile(r"(\d+)/(\d+) queries running in the last hour")


@dataclass(frozen=True)
class RateLimits:
    """Limits as one response states them; None where it says nothing.

    Attributes:
        hourly_limit: Requests that the rolling window allows.
        window_seconds: Length of the window in seconds.
        hourly_remaining: Requests left in the window.
        reset_seconds: Seconds until the window has room again.
        retry_after: The Retry-After header in seconds.
    """

    hourly_limit: int | None = None
    window_seconds: int | None = None
    hourly_remaining: int | None = None
    reset_seconds: int | None = None
    retry_after: float | None = None

    @property
    def room_after_seconds(self) -> float | None:
        """When a spent window has room again: what the server asks to wait comes before its arithmetic.

        At most an hour, or the window if it is longer: a rolling one has room by then. Milliseconds given for seconds
        would block for 41 days.
        """
        asked = self.reset_seconds if self.retry_after is None else self.retry_after
        return None if asked is None else min(asked, max(self.window_seconds or 0, DEFAULT_WINDOW_SECONDS))


def parse(headers: Mapping[str, str]) -> RateLimits:
    """Read RateLimit, RateLimit-Policy and Retry-After; parts that are unreadable or make no sense count as absent."""
    policy = _items(headers.get("RateLimit-Policy", ""))
    state = _items(headers.get("RateLimit", ""))
    window_policy, window = policy.get("project", {}), state.get("project", {})
    return RateLimits(
        hourly_limit=_up_to(_MOST_REQUESTS, window_policy.get("q")),
        window_seconds=_up_to(_LONGEST_WINDOW_SECONDS, window_policy.get("w")),
        hourly_remaining=window.get("r"),
        reset_seconds=window.get("t"),
        retry_after=_seconds(headers.get("Retry-After")),
    )


def is_hourly(limits: RateLimits, text: str) -> bool:
    """Whether a 429 comes from the rolling hour, by its headers first and its text otherwise."""
    if limits.hourly_remaining is not None:
        return limits.hourly_remaining <= 0
    counted = _IN_LAST_HOUR.search(text)
    return counted is not None and int(counted[1]) > int(counted[2])


def _items(header: str) -> dict[str, dict[str, int]]:
    return {
        item["policy"]: {
            name: int(value) for name, value in _PARAMETER.findall(item["parameters"]) if _NUMBER.fullmatch(value)
        }
        for item in _ITEM.finditer(header)
    }


def _up_to(most: int, value: int | None) -> int | None:
    return value if value is not None and value <= most else None


def _seconds(text: str | None) -> float | None:
    """The seconds that a Retry-After names, as a number or as an HTTP date."""
    try:
        seconds = float(text or "")
    except ValueError:
        return _seconds_until(text or "")
    return seconds if 0 <= seconds < float("inf") else None


def _seconds_until(date: str) -> float | None:
    try:
        moment = parsedate_to_datetime(date)
    except (ValueError, OverflowError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=timezone.utc)
    return max(0.0, (moment - datetime.now(timezone.utc)).total_seconds())
