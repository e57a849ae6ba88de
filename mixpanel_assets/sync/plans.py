"""How many pages, which chunks, and what is owed: arithmetic only. No clock, no file, no request.

What a server says is taken as its word about the whole: what a page lacks by it is told here, in one place.
"""

import datetime
import math
from collections.abc import Callable, Iterable

from mixpanel_assets.errors import RestartError
from mixpanel_assets.mixpanel.engage import EngagePage

# From here on a sync is worth a warning: little is left of the hour for anything else.
WARN_SHARE = 0.8
MAX_CHUNK_DAYS = 100


def page_count(total: int, page_size: int) -> int:
    """Pages that hold `total` profiles; page 0 exists even when it is empty."""
    return max(1, math.ceil(total / page_size))


def rows_due(page: int, total: int, page_size: int) -> int:
    """Rows that page must hold when `total` profiles lie on pages of `page_size`."""
    return max(0, min(page_size, total - page * page_size))


def last_page_index(is_full: Callable[[int], bool], start: int = 0) -> int:
    """The last page that holds rows, when the server does not say how many there are.

    Args:
        is_full: Fetches a page and says whether it holds a whole page of rows.
        start: A page that counts as full.

    Doubles until a page is not full, then halves the gap: 2 log2(pages) requests. The page returned is the first that
    is not full; it may be empty.
    """
    full, probe = start, start + 1
    while is_full(probe):
        full, probe = probe, start + 2 * (probe - start)
    not_full = probe
    while not_full - full > 1:
        middle = (full + not_full) // 2
        if is_full(middle):
            full = middle
        else:
            not_full = middle
    return not_full


def doubt_of_first_page(page: EngagePage) -> str | None:
    """Why a page 0 may be a fault, in one line: it is short, or names no session for the pages after it."""
    page_size = page_size_of(page)
    if lacks_session(page):
        return "page 0: the answer names no session_id, though more pages follow"
    return None if page.total is None else doubt_of_page(page, rows_due(0, page.total, page_size))


def lacks_session(first: EngagePage) -> bool:
    """Whether more pages follow, and cannot be asked for."""
    page_size = page_size_of(first)
    more = first.served >= page_size if first.total is None else first.total > page_size
    return more and first.session_id is None


def page_size_of(first: EngagePage) -> int:
    """Rows on a full page, by page 0: what the server says, else what it served."""
    return first.page_size or first.served or 1


def check_page_size(page: EngagePage, page_size: int) -> None:
    """Refuse a page of another size than page 0 said.

    Raises:
        RestartError: the server cut the pages anew; indices no longer mean the same rows.
    """
    if page.page_size not in (None, page_size):
        raise RestartError(f"page {page.page}: the server changed page_size from {page_size} to {page.page_size}")


def doubt_of_page(page: EngagePage, due: int | None) -> str | None:
    """Why a page may be a fault, in one line: it is short. `due`: rows it should hold, None where only the server
    knows."""
    return short(page.page, page.served, due) if due is not None and page.served < due else None


def short(page: int, served: int, due: int) -> str:
    """What a short page lacks, in one line."""
    return f"page {page}: {served} of {due} rows came"


def tolerated(reported: int, fraction: float) -> int:
    """Profiles that may be missing of so many: those deleted while their pages are fetched come on none."""
    # 0.29 * 100 is 28.999...
    return math.floor(reported * fraction + 1e-9)


def quota_warning(pages: int, hourly_limit: int) -> str | None:
    """A word of warning when a sync of so many pages would use most of the hourly quota, if each page counted."""
    if pages < WARN_SHARE * hourly_limit:
        return None
    share = pages / hourly_limit
    return (
        f"{pages} pages are {share:.0%} of the hourly quota of {hourly_limit} queries, should Mixpanel count them all"
    )


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
