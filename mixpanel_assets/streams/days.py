"""Ranges of days, as inclusive pairs of ISO dates: arithmetic only."""

import datetime
from collections.abc import Iterable

MAX_CHUNK_DAYS = 100
# Ten requests run at once; each further one costs a third of a second and a sixtieth of the hour.
_REQUESTS = 10
_LEAST_DAYS = 7


def split_date_range(from_date: str, to_date: str, chunk_days: int = 7) -> list[tuple[str, str]]:
    """The range as chunks that tile it: contiguous inclusive pairs of ISO dates, the last one perhaps shorter.

    Args:
        from_date: First day.
        to_date: Last day.
        chunk_days: Days per chunk, 1 to 100.

    Raises:
        ValueError: a date is none, the range runs backwards, or chunk_days is out of bounds; in one line.
    """
    first, last = _day(from_date, "from_date"), _day(to_date, "to_date")
    if first > last:
        raise ValueError(f"from_date {first} is after to_date {last}: swap them")
    if not 1 <= chunk_days <= MAX_CHUNK_DAYS:
        raise ValueError(f"chunk_days must be between 1 and {MAX_CHUNK_DAYS}, not {chunk_days}")
    days = (last - first).days + 1
    starts = (first + datetime.timedelta(days=offset) for offset in range(0, days, chunk_days))
    length = datetime.timedelta(days=chunk_days - 1)
    return [(start.isoformat(), min(start + length, last).isoformat()) for start in starts]


def days_per_request(chunk_days: int | None, days: int) -> int:
    """`chunk_days` where it is chosen; else a week, or as many as make ten requests of so many days, up to 100."""
    if chunk_days is not None:
        return chunk_days
    return min(max(_LEAST_DAYS, -(-days // _REQUESTS)), MAX_CHUNK_DAYS)


def days_between(from_date: str, to_date: str) -> list[str]:
    """Every day from the first to the last, inclusive, as ISO dates."""
    return [day for day, _ in split_date_range(from_date, to_date, 1)]


def ranges_of(days: Iterable[str]) -> list[tuple[str, str]]:
    """Days (ISO dates, any order) as the fewest contiguous inclusive ranges."""
    ranges: list[tuple[str, str]] = []
    for day in sorted(set(days)):
        before = (datetime.date.fromisoformat(day) - datetime.timedelta(days=1)).isoformat()
        if ranges and ranges[-1][1] == before:
            ranges[-1] = (ranges[-1][0], day)
        else:
            ranges.append((day, day))
    return ranges


def _day(text: str, name: str) -> datetime.date:
    try:
        day = datetime.date.fromisoformat(text)
        # From Python 3.11 on other ISO forms pass too, such as 20240131; Mixpanel wants this one.
        if day.isoformat() == text:
            return day
    except (TypeError, ValueError):
        pass
    raise ValueError(f"{name} {text!r} is not a date: write it as 2024-01-31")
