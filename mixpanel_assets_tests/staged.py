"""Pages as the server might send them, staged, for the tests of what comes after the fetch."""

import datetime
from collections.abc import Iterable, Mapping
from pathlib import Path

from mixpanel_assets.storage.staging import LocalStaging
from mixpanel_assets.streams.profiles.query import ProfileQuery
from mixpanel_assets.streams.profiles.stream import PROFILE_PAGES
from mixpanel_assets.streams.snapshot.page import Page, RejectedRow, Row
from mixpanel_assets.streams.snapshot.staged import PageResult, Snapshot, SnapshotFolder, StagedSnapshot

NOON = datetime.datetime(2026, 11, 22, 12, tzinfo=datetime.timezone.utc)


def page(number: int, rows: Mapping[str, str | None] | Iterable[tuple[str, str | None]], **more: object) -> Page:
    """A page of these profiles: id -> properties."""
    pairs = rows.items() if isinstance(rows, Mapping) else rows
    profiles = tuple(Row(key, text) for key, text in pairs)
    fields: dict[str, object] = {
        "page_size": 10,
        "total": None,
        "session_id": "s",
        "rejected": (),
        "repairs": 0,
        **more,
    }
    return Page(page=number, rows=profiles, **fields)  # type: ignore[arg-type]  # tests say what they change


def rejected(number: int, text: str) -> RejectedRow:
    return RejectedRow(number, "not an object", text)


def snapshot(
    folder: SnapshotFolder,
    pages: int = 1,
    total: int | None = None,
    query: ProfileQuery | None = None,
    began: datetime.datetime = NOON,
) -> Snapshot:
    return Snapshot(folder.id, query or ProfileQuery(), "s", 10, total, pages, began)


def stage(folder: SnapshotFolder, pages: Iterable[Page]) -> tuple[PageResult, ...]:
    return tuple(folder.write_page(each, counted_requests=0, attempts=()) for each in pages)


def staged(
    root: Path,
    name: str,
    pages: Iterable[Page],
    *,
    complete: bool = True,
    total: int | None = None,
    most: float = 1.0,
    query: ProfileQuery | None = None,
    began: datetime.datetime = NOON,
) -> StagedSnapshot:
    """Staged pages, ready to publish."""
    folder = SnapshotFolder(LocalStaging(root), PROFILE_PAGES, name)
    results = stage(folder, pages)
    plan = snapshot(folder, len(results), query=query, began=began)
    return StagedSnapshot(PROFILE_PAGES, plan, results, (), folder, complete, total, most)
