"""How many pages, which chunks, and what is owed: arithmetic only. No clock, no file, no request.

What a server says is taken as its word about the whole: what a page lacks by it is told here, in one place.
"""

import math
from collections.abc import Callable

from mixpanel_assets.errors import RestartError
from mixpanel_assets.streams.snapshot.page import Page


def page_count(total: int, page_size: int) -> int:
    """Pages that hold `total` rows; page 0 exists even when it is empty."""
    return max(1, math.ceil(total / page_size))


def rows_due(page: int, total: int, page_size: int) -> int:
    """Rows that page must hold when `total` rows lie on pages of `page_size`."""
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


def doubt_of_first_page(page: Page) -> str | None:
    """Why a page 0 may be a fault, in one line: it is short, or names no session for the pages after it."""
    page_size = page_size_of(page)
    if lacks_session(page):
        return "page 0: the answer names no session_id, though more pages follow"
    return None if page.total is None else doubt_of_page(page, rows_due(0, page.total, page_size))


def lacks_session(first: Page) -> bool:
    """Whether more pages follow, and cannot be asked for."""
    page_size = page_size_of(first)
    more = first.served >= page_size if first.total is None else first.total > page_size
    return more and first.session_id is None


def page_size_of(first: Page) -> int:
    """Rows on a full page, by page 0: what the server says, else what it served."""
    return first.page_size or first.served or 1


def check_page_size(page: Page, page_size: int) -> None:
    """Refuse a page of another size than page 0 said.

    Raises:
        RestartError: the server cut the pages anew; indices no longer mean the same rows.
    """
    if page.page_size not in (None, page_size):
        raise RestartError(f"page {page.page}: the server changed page_size from {page_size} to {page.page_size}")


def doubt_of_page(page: Page, due: int | None) -> str | None:
    """Why a page may be a fault, in one line: it is short. `due`: rows it should hold, None where only the server
    knows."""
    return short(page.page, page.served, due) if due is not None and page.served < due else None


def short(page: int, served: int, due: int) -> str:
    """What a short page lacks, in one line."""
    return f"page {page}: {served} of {due} rows came"


def tolerated(reported: int, fraction: float) -> int:
    """Rows that may be missing of so many: those deleted while their pages are fetched come on none."""
    # 0.29 * 100 is 28.999...
    return math.floor(reported * fraction + 1e-9)
