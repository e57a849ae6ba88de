"""The rules of a snapshot, without a server: what is still owed, what each page came to, and whether it is all."""

from pathlib import Path

import pytest

from mixpanel_assets.storage.staging import LocalStaging
from mixpanel_assets.streams.profiles.stream import PROFILE_PAGES
from mixpanel_assets.streams.snapshot import snapshots
from mixpanel_assets.streams.snapshot.page import Page
from mixpanel_assets.streams.snapshot.staged import PageResult, SnapshotFolder
from mixpanel_assets_tests.staged import page, rejected, snapshot, stage

pytestmark = pytest.mark.unit


@pytest.fixture
def folder(tmp_path: Path) -> SnapshotFolder:
    return SnapshotFolder(LocalStaging(tmp_path), PROFILE_PAGES, "snapshot")


def full(number: int, rows: int = 10, start: int | None = None, total: int | None = None) -> Page:
    """A page of `rows` profiles that no other page has."""
    first = number * 100 if start is None else start
    return page(number, {str(first + row): None for row in range(rows)}, total=total)


def failed(number: int) -> PageResult:
    return PageResult(number, error=f"page {number}: no")


def test_all_came(folder: SnapshotFolder) -> None:
    plan = snapshot(folder, 3, 25)
    results = stage(folder, [full(0), full(1), full(2, 5)])
    assert snapshots.owed_pages(folder, plan, results[1:]) == []
    assert snapshots.settle(folder, plan, results[1:]) == results
    assert snapshots.is_complete(results)


def test_pages_that_nobody_speaks_of_are_owed_and_else_missing(folder: SnapshotFolder) -> None:
    # As after a kill and a re-execution. Red when only the results handed on are looked at.
    plan = snapshot(folder, 5, 45)
    results = stage(folder, [full(0), full(1)])
    told = [results[1], failed(3)]
    assert snapshots.owed_pages(folder, plan, told) == [2, 4]  # page 3 has had its attempts
    settled = snapshots.settle(folder, plan, told)
    assert [result.error for result in settled] == [
        None,
        None,
        "page 2: never fetched, or its staged file is gone",
        "page 3: no",
        "page 4: never fetched, or its staged file is gone",
    ]
    assert not snapshots.is_complete(settled)


def test_a_staged_page_counts_whatever_was_told_of_it(folder: SnapshotFolder) -> None:
    plan = snapshot(folder, 2, 15)
    stage(folder, [full(0), full(1, 5)])
    settled = snapshots.settle(folder, plan, [failed(1)])
    assert all(result.came for result in settled)


@pytest.mark.parametrize(
    ("starts", "owed"),
    [([0, 0, 200], [1]), ([0, 200, 200], [1, 2]), ([0, 0, 0], [1, 2]), ([0, 100, 200], [])],
)
def test_repeated_pages(folder: SnapshotFolder, starts: list[int], owed: list[int]) -> None:
    """Page 0 opened the session; of two others it cannot be told which is right."""
    plan = snapshot(folder, 3, 30)
    results = stage(folder, [full(number, start=start) for number, start in enumerate(starts)])
    assert [r.page_index for r in snapshots.settle(folder, plan, results) if not r.came] == owed
    assert snapshots.owed_pages(folder, plan, results) == owed
    assert [folder.read_page(number) is None for number in owed] == [True] * len(owed)  # their files are dropped


@pytest.mark.parametrize(
    ("total", "pages", "owed", "in_all"),
    [
        (25, [full(0), full(1), full(2, 5)], [], 3),
        (30, [full(0), full(1), full(2)], [], 3),  # consistent: no request is spent on doubting it
        (25, [full(0), full(1), full(2)], [3], 4),  # more than due, and full
        (25, [full(0), full(1), full(2, 8)], [], 3),  # more than due, not full: duplicates
        (30, [full(0), full(1), full(2, total=55)], [3, 4, 5], 6),  # as many as the larger total says
        (30, [full(0), full(1), full(2, total=10**15)], [3, 4, 5], 6),  # believed up to twice the plan
        (30, [full(0), full(1), full(2, total=1)], [3], 4),
        (25, [full(0), full(1, total=90), full(2, 5)], [], 3),  # a last page that is not full is the last
        (None, [full(0), full(1), full(2, 5)], [], 3),
    ],
    ids=range(9),
)
def test_a_total_that_is_contradicted(
    folder: SnapshotFolder, total: int | None, pages: list[Page], owed: list[int], in_all: int
) -> None:
    plan = snapshot(folder, 3, total)
    results = stage(folder, pages)
    assert snapshots.owed_pages(folder, plan, results) == owed
    assert len(snapshots.settle(folder, plan, results)) == in_all


def test_an_extra_page_that_is_empty_is_no_page(folder: SnapshotFolder) -> None:
    plan = snapshot(folder, 3, 25)
    results = stage(folder, [full(0), full(1), full(2), full(3, 0)])
    assert snapshots.owed_pages(folder, plan, results) == []
    settled = snapshots.settle(folder, plan, results)
    assert [result.page_index for result in settled] == [0, 1, 2]


def test_rejected_rows_make_it_incomplete(folder: SnapshotFolder) -> None:
    odd = page(1, {str(n): None for n in range(9)}, rejected=(rejected(9, "7"),))
    assert not snapshots.is_complete(stage(folder, [full(0, start=50), odd]))


@pytest.mark.parametrize(
    ("total", "rows", "fraction", "missing", "failed"),
    [
        (25, (10, 10, 5), 0.0, [0, 0, 0], []),
        (25, (10, 10, 4), 0.0, [0, 0, 1], [2]),
        (25, (10, 10, 4), 0.04, [0, 0, 1], []),
        (25, (9, 10, 4), 0.04, [1, 0, 1], [0, 2]),
        (25, (10, 0, 5), 0.1, [0, 10, 0], [1]),
        (25, (12, 10, 5), 0.0, [0, 0, 0], []),  # duplicates come on top
        (25, (12, 10, 3), 0.0, [0, 0, 2], [2]),  # and make up for nobody
        (None, (10, 7, 2), 0.0, [0, 3, 0], [1]),  # without a total only the last may be short
        (None, (10, 7, 2), 0.2, [0, 3, 0], []),
    ],
    ids=range(9),
)
def test_what_lacks_is_counted_and_beyond_what_is_tolerated_fetched_again(
    folder: SnapshotFolder,
    total: int | None,
    rows: tuple[int, ...],
    fraction: float,
    missing: list[int],
    failed: list[int],
) -> None:
    results = stage(folder, [full(number, count) for number, count in enumerate(rows)])
    settled = snapshots.settle(folder, snapshot(folder, 3, total), results, fraction)
    assert [result.missing for result in settled] == missing
    assert [result.page_index for result in settled if result.failed] == failed
    assert all(result.came for result in settled)
    assert snapshots.is_complete(settled) == (not any(missing))


def test_the_largest_total_counts(folder: SnapshotFolder) -> None:
    results = stage(folder, [full(0, total=20), full(1, total=22), full(2, 0, total=5)])
    assert snapshots.expected_total(snapshot(folder, 2, 20), results) == 22
    assert snapshots.expected_total(snapshot(folder, 2, None), results[2:]) == 5
    assert snapshots.expected_total(snapshot(folder, 2, None), ()) is None
