"""A snapshot from page 0 to its last page: opening it, fetching a page into its folder, judging what came.

The rules of a sync without Dagster: assets/profiles.py runs them as ops. A page that fails is a result with a reason,
never an exception, because the pages that came are worth keeping.
"""

import dataclasses
import logging
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from pathlib import Path

from mixpanel_assets import plans
from mixpanel_assets.errors import MixpanelError, RestartError
from mixpanel_assets.mixpanel.client import MixpanelClient
from mixpanel_assets.mixpanel.engage import EngagePage, ProfileQuery
from mixpanel_assets.staging import PageResult, Snapshot, SnapshotFolder, new_snapshot_id


def open_snapshot(
    client: MixpanelClient, staging_root: Path, query: ProfileQuery, log: logging.Logger, restarts: int = 0
) -> Snapshot:
    """Fetch page 0 and stage it: it says how many pages there are, and its rows are used.

    Raises:
        MixpanelError: page 0 did not come.
    """
    started_at = datetime.now(timezone.utc)
    retrier = client.retrier(log)
    first = client.fetch_page(query, 0, None, retrier, accept=plans.check_first_page)
    folder = SnapshotFolder(staging_root, new_snapshot_id())
    folder.write_page(first, counted_requests=len(retrier.attempts), attempts=retrier.attempts)
    snapshot = Snapshot(
        id=folder.path.name,
        query=query,
        session_id=first.session_id,
        page_size=plans.page_size_of(first),
        total=first.total,
        pages=1,
        started_at=started_at,
        restarts=restarts,
    )
    if first.total is not None:
        pages = plans.page_count(first.total, snapshot.page_size)
    else:
        pages = _count_pages(client, folder, snapshot, first, log)
    snapshot = dataclasses.replace(snapshot, pages=pages)
    folder.write_snapshot(snapshot)
    return snapshot


def fetch_page(
    client: MixpanelClient, folder: SnapshotFolder, snapshot: Snapshot, page: int, log: logging.Logger
) -> PageResult:
    """Fetch one page into the snapshot's folder, unless it lies there already."""
    staged = folder.read_page(page)
    if staged is not None:
        return staged
    if folder.is_lost():
        return PageResult(page, error=f"page {page}: not asked for, its session is lost", lost_session=True)
    due = _rows_due(snapshot, page)
    retrier = client.retrier(log)

    def accept(came: EngagePage) -> None:
        plans.check_page(came, snapshot.page_size, due)

    try:
        came = client.fetch_page(snapshot.query, page, snapshot.session_id, retrier, accept)
    except MixpanelError as error:
        lost = isinstance(error, RestartError)
        if lost:
            folder.mark_lost()
        return PageResult(page, error=str(error), lost_session=lost, attempts=tuple(retrier.attempts))
    return folder.write_page(came, counted_requests=0, attempts=retrier.attempts)


def owed_pages(folder: SnapshotFolder, snapshot: Snapshot, results: Sequence[PageResult]) -> list[int]:
    """Pages still to be fetched after the first round.

    Those that no result speaks of (the run was killed and taken up again), those beyond the plan if a page reported a
    larger total, and those whose rows are another page's. A page that failed has had its attempts.
    """
    repeating = _repeating(results)
    for page in repeating:
        folder.drop_page(page)
    failed = {result.page_index for result in results if not result.came}
    pages = plans.page_count(expected_total(snapshot, results) or 0, snapshot.page_size)
    return [page for page in range(max(snapshot.pages, pages)) if page not in failed and folder.read_page(page) is None]


def settle(folder: SnapshotFolder, snapshot: Snapshot, results: Iterable[PageResult]) -> tuple[PageResult, ...]:
    """One result for every page of the snapshot, in order; what is staged counts, what nobody told of is missing."""
    told = {result.page_index: result for result in results}
    settled = [
        folder.read_page(page) or _missing(page, told.get(page)) for page in range(max([snapshot.pages - 1, *told]) + 1)
    ]
    repeating = _repeating(settled)
    return tuple(
        PageResult(
            result.page_index,
            error=f"page {result.page_index}: the server keeps sending the rows of another page",
            attempts=result.attempts,
        )
        if result.page_index in repeating
        else result
        for result in settled
    )


def expected_total(snapshot: Snapshot, results: Iterable[PageResult]) -> int | None:
    """Profiles there should be: the largest number that any page reported."""
    reported = [snapshot.total, *(result.total for result in results)]
    return max((total for total in reported if total is not None), default=None)


def is_complete(snapshot: Snapshot, results: Sequence[PageResult]) -> bool:
    """Whether every profile that the server reported lies staged, so that what is not there is gone from Mixpanel."""
    total = expected_total(snapshot, results)
    whole = all(result.came and result.rejected == 0 for result in results)
    return whole and (total is None or sum(result.rows for result in results) >= total)


def _count_pages(
    client: MixpanelClient, folder: SnapshotFolder, snapshot: Snapshot, first: EngagePage, log: logging.Logger
) -> int:
    """The number of pages when the server does not report a total: fetch on until a page is not full."""
    if first.served < snapshot.page_size or first.session_id is None:
        return 1

    def is_full(page: int) -> bool:
        result = fetch_page(client, folder, snapshot, page, log)
        if result.error is not None:
            raise MixpanelError(f"the server reports no total, and the pages cannot be counted: {result.error}")
        return result.rows + result.rejected >= snapshot.page_size

    def holds_rows(page: int) -> bool:
        result = fetch_page(client, folder, snapshot, page, log)
        return result.error is not None or result.rows + result.rejected > 0

    last = plans.last_page_index(is_full)
    if holds_rows(last + 1):
        raise MixpanelError(
            f"the server reports no total, and page {last} is not full though page {last + 1} follows: sync again later"
        )
    return last + 1 if holds_rows(last) else last


def _rows_due(snapshot: Snapshot, page: int) -> int | None:
    """Rows a page must hold; without a total all but the last must be full."""
    if snapshot.total is not None:
        return plans.rows_due(page, snapshot.total, snapshot.page_size)
    return snapshot.page_size if page < snapshot.pages - 1 else None


def _missing(page: int, told: PageResult | None) -> PageResult:
    if told is not None and not told.came:
        return told
    return PageResult(page, error=f"page {page}: never fetched, or its staged file is gone")


def _repeating(results: Iterable[PageResult]) -> set[int]:
    """Pages with rows whose content equals another page's. Which of them is right cannot be told, so all of them."""
    by_ids: dict[str, list[int]] = {}
    for result in results:
        if result.came and result.rows:
            by_ids.setdefault(result.ids_digest, []).append(result.page_index)
    return {page for pages in by_ids.values() if len(pages) > 1 for page in pages}
