"""A snapshot from page 0 to its last page: opening it, fetching a page into its folder, judging what came.

The rules of a sync without Dagster: graph.py runs them as ops. A page that fails is a result with a reason,
never an exception, because the pages that came are worth keeping. So are the rows of a page that came short, since one
may have been deleted meanwhile: it is asked for once more, and then taken as it is. What is missing is counted;
if it is more than is tolerated, the short pages are to be fetched again.
"""

import dataclasses
import functools
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone

from mixpanel_assets.client.client import MixpanelClient
from mixpanel_assets.client.retry import Retrier
from mixpanel_assets.errors import MixpanelError, RestartError, kind_of
from mixpanel_assets.storage.staging import Staging
from mixpanel_assets.streams.snapshot import page_rules
from mixpanel_assets.streams.snapshot.asking import Asked, ask
from mixpanel_assets.streams.snapshot.page import Page
from mixpanel_assets.streams.snapshot.staged import PageResult, Snapshot, SnapshotFolder, new_snapshot_id
from mixpanel_assets.streams.snapshot.stream import SnapshotQuery, SnapshotStream

_UNCOUNTED = "the server reports no total, and the pages cannot be counted"


def open_snapshot(
    stream: SnapshotStream,
    client: MixpanelClient,
    staging: Staging,
    query: SnapshotQuery,
    log: logging.Logger,
    run_id: str,
    restarts: int = 0,
) -> Snapshot:
    """Fetch page 0 and stage it for a run: it says how many pages there are, and its rows are used.

    Raises:
        MixpanelError: page 0 did not come, or the pages cannot be counted.
    """
    staging.prepare(stream.name)
    try:
        return _open(stream, client, staging, query, log, run_id, restarts)
    except RestartError as error:
        if restarts:
            raise
        log.warning(f"{error}; one fresh start from page 0")
        return _open(stream, client, staging, query, log, run_id, restarts=1)


def fetch_page(
    client: MixpanelClient, folder: SnapshotFolder, snapshot: Snapshot, page: int, log: logging.Logger
) -> PageResult:
    """Fetch one page into the snapshot's folder, unless all of it lies there already."""
    staged = folder.read_page(page)
    due = _rows_due(snapshot, page)
    if staged is not None and staged.served >= (due or 0) and not staged.missing:
        return staged
    session = snapshot.session_of(page)
    if session is None:
        return staged or PageResult(page, error=f"page {page}: not asked for, page 0 named no session_id")
    if folder.is_lost():
        known = staged or PageResult(page, error=f"page {page}: not asked for, its session is lost")
        return dataclasses.replace(known, lost_session=True)
    retrier = client.retrier(log)
    asked = ask(
        lambda place: folder.stream.fetch_page(
            client, snapshot.query, page, session, retrier, _of_size(snapshot.page_size), place
        ),
        # What lies here short has been asked for once more already.
        lambda came: page_rules.doubt_of_page(came, due) if staged is None else None,
        retrier,
        folder.working_folder(),
    )
    return _kept(folder, page, staged, asked, retrier)


def owed_pages(folder: SnapshotFolder, snapshot: Snapshot, results: Sequence[PageResult]) -> list[int]:
    """Pages still to be fetched after the first round.

    Those that no result speaks of (the run was killed and taken up again), those beyond the plan if what came
    contradicts it, and those whose rows are another page's. A page that failed has had its attempts.
    """
    known = _known(folder, snapshot, results)
    for page in _repeating(known.values()):
        folder.drop_page(page)
        del known[page]
    return [page for page in range(_pages_in_all(snapshot, known)) if page not in known]


def settle(
    folder: SnapshotFolder, snapshot: Snapshot, results: Sequence[PageResult], max_missing_fraction: float = 0.0
) -> tuple[PageResult, ...]:
    """One result for every page of the snapshot, in order; what is staged counts, what nobody told of is missing.

    Where more than `max_missing_fraction` of all rows lack on pages that came, these are to be fetched again.
    """
    known = _known(folder, snapshot, results)
    for page in _repeating(known.values()):
        reason = f"page {page}: the server keeps sending the rows of another page"
        known[page] = PageResult(page, error=reason, attempts=known[page].attempts)
    pages = _pages_in_all(snapshot, known)
    settled = [known.get(page) or _missing(page) for page in range(pages)]
    return _with_missing(dataclasses.replace(snapshot, pages=pages), settled, max_missing_fraction)


def expected_total(snapshot: Snapshot, results: Iterable[PageResult]) -> int | None:
    """Rows there should be: the largest number that any page reported. Of a stream in parts none reports it."""
    reported = [snapshot.total, *(result.total for result in results)]
    return max((total for total in reported if total is not None), default=None)


def is_complete(results: Sequence[PageResult]) -> bool:
    """Whether every page lies staged with all rows that are due, and every row on it can be stored."""
    return all(result.whole for result in results)


def _as_it_is(page: Page) -> None:
    """Nothing is known yet that a page 0 could contradict."""


def _of_size(page_size: int) -> Callable[[Page], None]:
    return lambda came: page_rules.check_page_size(came, page_size)


def _kept(folder: SnapshotFolder, page: int, staged: PageResult | None, asked: Asked, retrier: Retrier) -> PageResult:
    """The result of a page that was asked for: the fuller of what came and what lay here."""
    before = staged or PageResult(
        page, error=str(asked.error), error_kind="" if asked.error is None else kind_of(asked.error)
    )
    counted_requests = before.counted_requests + retrier.counted_requests
    attempts = (*before.attempts, *retrier.attempts)
    lost = isinstance(asked.error, RestartError)
    if lost:
        folder.mark_lost()
    if asked.page is not None and (staged is None or asked.page.served > staged.served):
        result = folder.write_page(asked.page, counted_requests, attempts)
    else:
        result = dataclasses.replace(before, counted_requests=counted_requests, attempts=attempts)
        if staged is not None:
            folder.note(result)
    return dataclasses.replace(result, lost_session=lost)


def _open(
    stream: SnapshotStream,
    client: MixpanelClient,
    staging: Staging,
    query: SnapshotQuery,
    log: logging.Logger,
    run_id: str,
    restarts: int,
) -> Snapshot:
    started_at = datetime.now(timezone.utc)
    retrier = client.retrier(log)
    asked = ask(
        lambda place: stream.fetch_page(client, query, 0, None, retrier, _as_it_is, place),
        page_rules.doubt_of_first_page,
        retrier,
        staging.working_folder(stream.name),
    )
    first = asked.came()
    folder = SnapshotFolder(staging, stream, new_snapshot_id())
    folder.claim(run_id)
    folder.write_page(first, counted_requests=retrier.counted_requests, attempts=retrier.attempts)
    snapshot = Snapshot(
        id=folder.id,
        query=query,
        session_id=first.session_id,
        # Parts are of any size: no page of them is ever too short.
        page_size=0 if first.parts is not None else page_rules.page_size_of(first),
        total=first.total,
        pages=1,
        started_at=started_at,
        restarts=restarts,
        parts=first.parts,
    )
    snapshot = _with_pages(client, folder, snapshot, first, log)
    folder.write_snapshot(snapshot)
    return snapshot


def _with_pages(
    client: MixpanelClient, folder: SnapshotFolder, snapshot: Snapshot, first: Page, log: logging.Logger
) -> Snapshot:
    """The snapshot with the number of its pages.

    Mixpanel's documentation words `total` as the rows of one answer. Of a full page 0 with that total it cannot be told
    whether all rows are meant: page 1 shows it, and costs no other project a request.
    """
    if first.parts is not None:
        return dataclasses.replace(snapshot, pages=1 + len(first.parts.names))
    if first.total == snapshot.page_size and first.session_id is not None:
        following = fetch_page(client, folder, snapshot, 1, log)
        if not following.came:
            return dataclasses.replace(snapshot, pages=2)
        if following.served:
            snapshot = dataclasses.replace(snapshot, total=None)
    if snapshot.total is not None:
        pages = page_rules.page_count(snapshot.total, snapshot.page_size)
    elif first.served < snapshot.page_size:
        pages = 1
    elif first.session_id is None:
        pages = 2  # At least: it fails, and says why.
    else:
        pages = _PageCount(client, folder, snapshot, log).pages()
    return dataclasses.replace(snapshot, pages=pages)


class _PageCount:
    """Counts the pages when the server does not report a total: fetches on until a page is not full."""

    def __init__(self, client: MixpanelClient, folder: SnapshotFolder, snapshot: Snapshot, log: logging.Logger) -> None:
        self._fetch_page = functools.partial(fetch_page, client, folder, snapshot, log=log)
        self._page_size = snapshot.page_size
        self._came = _known(folder, snapshot, ())

    def pages(self) -> int:
        last = page_rules.last_page_index(self._is_full)
        while self._held(last + 1):  # A page amid the others came short.
            last = page_rules.last_page_index(self._is_full, last + 1)
        if self._held(last + 1) is None:
            return last + 2
        return last + 1 if self._held(last) != 0 else last

    def _is_full(self, page: int) -> bool:
        held = self._held(page)
        if held is not None:
            return held >= self._page_size
        # A page that fails costs only itself: the one after it says whether it must be full. If that fails too, it is
        # the last one that is known of.
        return bool(self._held(page + 1))

    def _held(self, page: int) -> int | None:
        """Rows on a page, None if it does not come."""
        result = self._came.get(page) or self._fetch_page(page)
        if result.lost_session:
            raise RestartError(result.error)
        if not result.came:
            return None
        self._came[page] = result
        if _repeating(self._came.values()):
            raise MixpanelError(f"{_UNCOUNTED}: page {page} holds the rows of another page; sync again")
        return result.served


def _rows_due(snapshot: Snapshot, page: int) -> int | None:
    """Rows a page must hold; without a total all but the last must be full."""
    if snapshot.total is not None:
        return page_rules.rows_due(page, snapshot.total, snapshot.page_size)
    return snapshot.page_size if page < snapshot.pages - 1 else None


def _known(folder: SnapshotFolder, snapshot: Snapshot, results: Sequence[PageResult]) -> dict[int, PageResult]:
    """What is known of each page: its staged rows, else why it failed; of other pages nothing."""
    failed = {result.page_index: result for result in results if not result.came}
    highest = max([snapshot.pages - 1, *(result.page_index for result in results)])
    found = ((page, folder.read_page(page) or failed.get(page)) for page in range(highest + 1))
    return {page: result for page, result in found if result is not None}


def _pages_in_all(snapshot: Snapshot, known: Mapping[int, PageResult]) -> int:
    """Pages there are, by all that came.

    Page 0's total is the server's word, and no request is spent on doubting it (but see `_with_pages`). Where a later
    page contradicts it, or the last page holds more than it should, a full last page may have another after it; how
    many, the server's largest total says, and is believed up to twice the plan.
    """
    if snapshot.parts is not None:
        return snapshot.pages
    pages = max([snapshot.pages, *(page + 1 for page, result in known.items() if not result.came or result.served)])
    last = known.get(pages - 1)
    if last is None or not last.came or last.served < snapshot.page_size or pages in known:
        return pages  # It ends with a page that is not full, or before one that came and is empty.
    contradicted = any(result.total not in (None, snapshot.total) for result in known.values())
    due = _rows_due(snapshot, pages - 1)
    if not contradicted and (due is None or last.served <= due):
        return pages
    reported = page_rules.page_count(expected_total(snapshot, known.values()) or 0, snapshot.page_size)
    return max(pages + 1, min(reported, 2 * pages))


def _with_missing(
    snapshot: Snapshot, results: Sequence[PageResult], max_missing_fraction: float
) -> tuple[PageResult, ...]:
    """The results with the rows that each lacks, and with an error where that is too much in all, or of a part."""
    if snapshot.parts is not None:
        return tuple(_part_with_missing(result, max_missing_fraction) for result in results)
    due = [_rows_due(snapshot, result.page_index) or 0 for result in results]
    missing = [max(0, rows - result.served) if result.came else 0 for rows, result in zip(due, results, strict=True)]
    reported = expected_total(snapshot, results) or sum(due)
    is_too_much = sum(missing) > page_rules.tolerated(reported, max_missing_fraction)
    return tuple(
        dataclasses.replace(
            result,
            missing=lacking,
            error=page_rules.short(result.page_index, result.served, rows) if lacking and is_too_much else result.error,
        )
        for result, lacking, rows in zip(results, missing, due, strict=True)
    )


def _part_with_missing(result: PageResult, max_missing_fraction: float) -> PageResult:
    reported = result.served + result.missing
    if not result.came or result.missing <= page_rules.tolerated(reported, max_missing_fraction):
        return result
    return dataclasses.replace(result, error=page_rules.short(result.page_index, result.served, reported))


def _missing(page: int) -> PageResult:
    return PageResult(page, error=f"page {page}: never fetched, or its staged file is gone")


def _repeating(results: Iterable[PageResult]) -> set[int]:
    """Pages with the rows of another page.

    Page 0 opened the session, so it is the other that is wrong. Between two others it cannot be told, so both are.
    """
    by_ids: dict[str, list[int]] = {}
    for result in results:
        if result.came and result.rows:
            by_ids.setdefault(result.ids_digest, []).append(result.page_index)
    return {page for pages in by_ids.values() if len(pages) > 1 for page in pages if page != 0}
