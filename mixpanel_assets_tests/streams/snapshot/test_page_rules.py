"""Pages: every profile on exactly one of them, whatever the server says or keeps to itself."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixpanel_assets.errors import RestartError
from mixpanel_assets.streams.budgets import quota_warning
from mixpanel_assets.streams.snapshot import page_rules as plans
from mixpanel_assets.streams.snapshot.page import Page, Row

pytestmark = pytest.mark.unit

TOTALS = st.integers(0, 100_000)
SIZES = st.integers(1, 5_000)
NO_SESSION = "page 0: the answer names no session_id, though more pages follow"


def page(served: int, *, index: int = 0, size: int | None = 10, total: int | None = None) -> Page:
    rows = tuple(Row(str(number), None) for number in range(served))
    return Page(index, size, total, "s", rows, (), 0)


@given(TOTALS, SIZES)
def test_pages_tile_the_profiles_exactly_once(total: int, size: int) -> None:
    # Red with floor instead of ceil, or with > for >= somewhere in rows_due.
    pages = plans.page_count(total, size)
    due = [plans.rows_due(number, total, size) for number in range(pages)]
    assert sum(due) == total
    assert all(rows == size for rows in due[:-1])
    assert due[-1] > 0 or pages == 1
    assert plans.rows_due(pages, total, size) == 0


@settings(max_examples=300)
@given(st.integers(1, 3_000))
def test_the_last_page_is_found_without_a_total(full_pages: int) -> None:
    asked: list[int] = []

    def is_full(number: int) -> bool:
        asked.append(number)
        return number < full_pages

    assert plans.last_page_index(is_full) == full_pages
    assert len(asked) == len(set(asked)) <= 2 * full_pages.bit_length() + 1


@pytest.mark.parametrize(
    ("first", "doubt"),
    [
        (page(10, total=35), None),
        (page(0, total=0), None),
        (page(5, total=5), None),
        (page(12, total=35), None),  # duplicates come on top
        (page(10), None),
        (page(9, total=35), "page 0: 9 of 10 rows came"),
        (page(0, total=1), "page 0: 0 of 1 rows came"),
        (page(10, size=None, total=35), None),
        (replace(page(10, total=35), session_id=None), NO_SESSION),
        (replace(page(10), session_id=None), NO_SESSION),
        (replace(page(9, total=35), session_id=None), NO_SESSION),
        (replace(page(9), session_id=None), None),
        (replace(page(10, total=10), session_id=None), None),
    ],
    ids=range(13),
)
def test_a_first_page_that_bears_no_plan_may_be_a_fault(first: Page, doubt: str | None) -> None:
    assert plans.doubt_of_first_page(first) == doubt


@pytest.mark.parametrize(
    ("came", "due", "doubt"),
    [
        (page(10), 10, None),
        (page(13), 10, None),
        (page(5), 5, None),
        (page(0), 0, None),
        (page(3), None, None),
        (page(10, size=None), 10, None),
        (page(9), 10, "page 0: 9 of 10 rows came"),
        (page(0), 1, "page 0: 0 of 1 rows came"),
    ],
    ids=range(8),
)
def test_a_short_page_may_be_a_fault(came: Page, due: int | None, doubt: str | None) -> None:
    assert plans.doubt_of_page(came, due) == doubt


def test_pages_that_are_cut_anew_do_not_fit_together() -> None:
    plans.check_page_size(page(10), 10)
    plans.check_page_size(page(10, size=None), 10)
    with pytest.raises(RestartError, match="page_size from 10 to 20"):
        plans.check_page_size(page(10, size=20), 10)


@pytest.mark.parametrize(
    ("reported", "fraction", "most"),
    [(35, 0.001, 0), (999, 0.001, 0), (1000, 0.001, 1), (3000, 0.001, 3), (100, 0.29, 29), (5, 1.0, 5), (0, 0.5, 0)],
)
def test_few_of_many_may_be_missing(reported: int, fraction: float, most: int) -> None:
    assert plans.tolerated(reported, fraction) == most


def test_page_size_is_what_the_server_says_or_serves() -> None:
    assert [plans.page_size_of(first) for first in (page(10, size=20), page(7, size=None), page(0, size=None))] == [
        20,
        7,
        1,
    ]


@pytest.mark.parametrize(
    ("pages", "limit", "warns"),
    [
        (1, 60, False),
        (47, 60, False),
        (48, 60, True),
        (60, 60, True),
        (90, 60, True),
        (90, 240, False),
        (192, 240, True),
    ],
)
def test_a_warning_from_80_percent_of_the_hour(pages: int, limit: int, *, warns: bool) -> None:
    assert (quota_warning(pages, limit) is not None) == warns
