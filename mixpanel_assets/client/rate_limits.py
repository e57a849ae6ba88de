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
# A limit over less than this is waited out where it is met, as one of a second or a minute.
_SHORTEST_HOURLY_SECONDS = 300
# Beyond these a header makes no sense. Ten thousand are nearly three a second, all that Mixpanel's exports take.
_MOST_REQUESTS = 10_000
_LONGEST_WINDOW_SECONDS = 24 * 3600
_ITEM = re.compile(
    r'(?:"(?P<quoted>[^"]*)"|(?P<bare>[A-Za-z*][\w.*/:-]*))(?P<parameters>(?:\s*;\s*\w+\s*=(?:\s*"[^"]*"|[^;,"]*))*)'
)
_PARAMETER = re.compile(r';\s*(\w+)\s*=\s*("[^"]*"|[^;,"]*)')
_NUMBER = re.compile(r"[0-9]{1,9}")
_IN_LAST_HOUR = re.compile(r"(\d+)\s*/\s*(\d+)[\w\s]{1,60}\blast\s+hour", re.IGNORECASE)


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
    def seconds_until_free(self) -> float | None:
        """When a spent window has room again; what the server asks to wait comes before its arithmetic.

        A whole window or more is no such time: a rolling one has room before, and Mixpanel names its length whatever
        others of the project have sent. Milliseconds given for seconds would block for 41 days.
        """
        window = self.window_seconds or DEFAULT_WINDOW_SECONDS
        times = [seconds for seconds in (self.retry_after, self.reset_seconds) if seconds is not None]
        return next((float(seconds) for seconds in times if 0 < seconds < window), None)


def parse(headers: Mapping[str, str]) -> RateLimits:
    """Read RateLimit, RateLimit-Policy and Retry-After; parts that are unreadable or make no sense count as absent."""
    policies, states = _items(headers.get("RateLimit-Policy", "")), _items(headers.get("RateLimit", ""))
    hourly = [
        (policy, state)
        for name in [*policies, *(name for name in states if name not in policies)]
        if _is_of_hour(name, policy := policies.get(name, {}), state := states.get(name, {}))
    ]
    # Of several windows the one that has least left, such as the one that was refused.
    policy, state = min(hourly, key=lambda pair: _left(pair[1]), default=({}, {}))
    policy = policy or next((other for other, _ in hourly if other), {})
    return RateLimits(
        hourly_limit=_up_to(_MOST_REQUESTS, _number(policy, "q")),
        window_seconds=_up_to(_LONGEST_WINDOW_SECONDS, _number(policy, "w")),
        hourly_remaining=_number(state, "r", "a"),
        reset_seconds=_number(state, "t"),
        retry_after=_seconds(headers.get("Retry-After")),
    )


def is_hourly(limits: RateLimits, text: str) -> bool:
    """Whether a 429 comes from the rolling hour, by its headers first and its text otherwise."""
    if limits.hourly_remaining is not None:
        return limits.hourly_remaining <= 0
    counted = _IN_LAST_HOUR.search(text)
    return counted is not None and int(counted[1]) > int(counted[2])


def _is_of_hour(name: str, policy: Mapping[str, str], state: Mapping[str, str]) -> bool:
    """Whether a limit counts over a long window. Its length decides; where none is given, its unit and its name, since
    that of requests in flight has no length."""
    window = _number(policy, "w")
    if window is not None:
        return window >= _SHORTEST_HOURLY_SECONDS
    return not any("concurren" in word.lower() for word in (name, policy.get("qu", "")))


def _items(header: str) -> dict[str, dict[str, str]]:
    return {
        item["quoted"] or item["bare"] or "": {
            name.lower(): value.strip().strip('"') for name, value in _PARAMETER.findall(item["parameters"])
        }
        for item in _ITEM.finditer(header)
    }


def _left(state: Mapping[str, str]) -> int:
    left = _number(state, "r", "a")
    return _MOST_REQUESTS if left is None else left


def _number(parameters: Mapping[str, str], *names: str) -> int | None:
    found = next((parameters[name] for name in names if name in parameters), "")
    return int(found) if _NUMBER.fullmatch(found) else None


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
