"""Fetched pages as files, between Mixpanel and DuckDB: each snapshot has a folder, each page a file and a manifest.

    staging/profiles/<snapshot>/snapshot.json               what page 0 said
                                page-00007.jsonl            the rows
                                page-00007.rejected.jsonl   rows that cannot be stored, if any
                                page-00007.json             how the fetch went: written last, so its presence means
                                whole

Files appear under their final name complete or not at all. They outlive the run that wrote them, so that pages that
failed can be fetched later and joined with the rest. What travels between ops are the small objects of this module,
never rows.
"""

import dataclasses
import datetime
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from mixpanel_assets.errors import WarehouseError
from mixpanel_assets.mixpanel.engage import EngagePage, ProfileQuery, RejectedRow
from mixpanel_assets.mixpanel.retry import Attempt

# A partial snapshot waits so long for its failed pages to be fetched; Mixpanel's session is gone long before.
KEEP_SECONDS = 7 * 24 * 3600


@dataclass(frozen=True)
class Snapshot:
    """One complete set of pages of one session: what page 0 promised.

    Attributes:
        id: Name of its folder.
        query: What was asked for.
        session_id: The session that its pages share; None when one page is all.
        page_size: Profiles on a full page.
        total: Profiles that the server reports; None if it did not say.
        pages: Pages, page 0 included.
        started_at: When page 0 was asked for.
        restarts: Fresh starts before this one in the same run.
    """

    id: str
    query: ProfileQuery
    session_id: str | None
    page_size: int
    total: int | None
    pages: int
    started_at: datetime.datetime
    restarts: int = 0


@dataclass(frozen=True)
class PageResult:
    """How the fetch of one page ended. `error` is None when its rows are staged.

    Attributes:
        page_index: 0-based.
        rows: Rows staged.
        bytes: Size of the staged file.
        digest: Of the staged rows, as content.
        ids_digest: Of the set of ids: equal for pages with the same profiles, whatever their order.
        total: Profiles in all as this page reports it.
        rejected: Rows set aside because they are no profiles.
        repaired: Rows stored with a mended text, and set aside as served.
        error: Why the page did not come, in one line.
        lost_session: The page failed because its session is gone or was cut anew.
        counted_requests: Requests that count against the hourly quota.
        attempts: Each request sent.
    """

    page_index: int
    rows: int = 0
    bytes: int = 0
    digest: str = ""
    ids_digest: str = ""
    total: int | None = None
    rejected: int = 0
    repaired: int = 0
    error: str | None = None
    lost_session: bool = False
    counted_requests: int = 0
    attempts: tuple[Attempt, ...] = ()

    @property
    def came(self) -> bool:
        """Whether the rows are staged."""
        return self.error is None


class SnapshotFolder:
    """The files of one snapshot."""

    def __init__(self, root: Path, snapshot_id: str) -> None:
        self.path = root / "profiles" / snapshot_id

    def write_snapshot(self, snapshot: Snapshot) -> None:
        """Keep what page 0 said."""
        self._make()
        with _whole_file(self.path / "snapshot.json") as file:
            json.dump(_plain(snapshot), file)

    def read_snapshot(self) -> Snapshot | None:
        """What page 0 said, or None if these files are gone."""
        fields = _read_json(self.path / "snapshot.json")
        if fields is None:
            return None
        query = fields.pop("query")
        if query["output_properties"] is not None:
            query["output_properties"] = tuple(query["output_properties"])
        fields["started_at"] = datetime.datetime.fromisoformat(fields["started_at"])
        return Snapshot(query=ProfileQuery(**query), **fields)

    def write_page(self, page: EngagePage, counted_requests: int, attempts: Iterable[Attempt]) -> PageResult:
        """Stage the rows of a page; the result's manifest is written last."""
        self._make()
        rows_file = self.rows_file(page.page)
        digest = hashlib.sha256()
        with _whole_file(rows_file) as file:
            for number, row in enumerate(page.rows):
                line = json.dumps([row.distinct_id, row.properties], ensure_ascii=False)
                digest.update(line.encode())
                file.write(f'{{"page":{page.page},"row":{number},"profile":{line}}}\n')
        set_aside = [*page.rejected, *page.repaired]
        if set_aside:
            with _whole_file(self.rejected_file(page.page)) as file:
                file.writelines(_rejected_line(f"page {page.page}", row) for row in set_aside)
        result = PageResult(
            page_index=page.page,
            rows=len(page.rows),
            bytes=rows_file.stat().st_size,
            digest=digest.hexdigest(),
            ids_digest=_digest_of_ids(page),
            total=page.total,
            rejected=len(page.rejected),
            repaired=len(page.repaired),
            counted_requests=counted_requests,
            attempts=tuple(attempts),
        )
        with _whole_file(self._manifest(page.page)) as file:
            json.dump(_plain(result), file)
        return result

    def read_page(self, page: int) -> PageResult | None:
        """The result of a page whose file is here, and whole."""
        fields = _read_json(self._manifest(page))
        rows_file = self.rows_file(page)
        if fields is None or not rows_file.is_file() or rows_file.stat().st_size != fields["bytes"]:
            return None
        fields["attempts"] = tuple(
            Attempt(
                datetime.datetime.fromisoformat(attempt["started_at"]),
                datetime.datetime.fromisoformat(attempt["ended_at"]),
                attempt["error"],
                attempt["wait_seconds"],
            )
            for attempt in fields["attempts"]
        )
        return PageResult(**fields)

    def drop_page(self, page: int) -> None:
        """Forget a staged page that turned out to be wrong."""
        for file in (self._manifest(page), self.rows_file(page), self.rejected_file(page)):
            file.unlink(missing_ok=True)

    def mark_lost(self) -> None:
        """Remember that the session is gone, so that no further page is asked for under it."""
        self._make()
        (self.path / "session-lost").touch()

    def is_lost(self) -> bool:
        """Whether some page found the session gone."""
        return (self.path / "session-lost").exists()

    def rows_file(self, page: int) -> Path:
        """JSON lines: `page`, `row`, `profile` = [distinct_id, properties as text]."""
        return self.path / f"page-{page:05d}.jsonl"

    def rejected_file(self, page: int) -> Path:
        """JSON lines: `source`, `row`, `reason`, `text`."""
        return self.path / f"page-{page:05d}.rejected.jsonl"

    def remove(self) -> None:
        """Delete the folder; a file that cannot be deleted now is left to `sweep`."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _manifest(self, page: int) -> Path:
        return self.path / f"page-{page:05d}.json"

    def _make(self) -> None:
        with _disk_errors(self.path):
            # Profiles are personal data: only the user who syncs may read them.
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)


def new_snapshot_id() -> str:
    """A name that sorts by time and is never used twice."""
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{uuid.uuid4().hex[:8]}"


def sweep(root: Path) -> None:
    """Delete staged folders that nothing has touched for `KEEP_SECONDS`."""
    for folder in root.glob("*/*"):
        try:
            if time.time() - folder.stat().st_mtime > KEEP_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
        except FileNotFoundError:  # another run swept it first
            continue


def _digest_of_ids(page: EngagePage) -> str:
    return hashlib.sha256("\n".join(sorted(row.distinct_id for row in page.rows)).encode()).hexdigest()


def _rejected_line(source: str, row: RejectedRow) -> str:
    # Bytes that were not UTF-8 stay readable as \xNN.
    text = row.text.encode("utf-8", errors="surrogateescape").decode("utf-8", errors="backslashreplace")
    line = {"source": source, "row": row.row_number, "reason": row.reason, "text": text}
    return json.dumps(line, ensure_ascii=False) + "\n"


def _plain(value: Any) -> Any:
    """A dataclass as JSON-ready values, times as ISO strings."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value.isoformat() if isinstance(value, datetime.datetime) else value


def _read_json(file: Path) -> dict[str, Any] | None:
    try:
        fields: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return fields


@contextmanager
def _whole_file(file: Path) -> Iterator[TextIO]:
    """A file that appears under its name when all of it is written."""
    partial = file.with_suffix(f".{uuid.uuid4().hex[:8]}.partial")
    with _disk_errors(file):
        try:
            with partial.open("w", encoding="utf-8", newline="\n") as stream:
                yield stream
            partial.replace(file)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


@contextmanager
def _disk_errors(place: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise WarehouseError(
            f"cannot stage in {place.parent}: {reason}; free space or choose another DAGSTER_HOME"
        ) from None
