"""Fetched pages as files, between Mixpanel and DuckDB: each snapshot has a folder, each page a file and a manifest.

    staging/<stream>/<snapshot>/snapshot.json               what page 0 said
                                page-00007.jsonl            the rows
                                page-00007.rejected.jsonl   rows that cannot be stored, if any
                                page-00007.json             how the fetch went: written last, so its presence means
                                                            whole
                                <run>.run                   a run that works with them

Files appear under their final name complete or not at all. They outlive the run that wrote them, so that pages that
failed can be fetched later and joined with the rest. What travels between ops are the small objects of this module,
never rows.
"""

import datetime
import hashlib
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from mixpanel_assets.client.retry import Attempt
from mixpanel_assets.settings import SCHEMA
from mixpanel_assets.storage.staging import Staging, local_path, read_manifest
from mixpanel_assets.streams.outcome import Outcome
from mixpanel_assets.streams.snapshot.page import Page, Parts
from mixpanel_assets.streams.snapshot.stream import SnapshotQuery, SnapshotStream


@dataclass(frozen=True)
class Snapshot:
    """One complete set of pages of one session: what page 0 promised.

    Attributes:
        id: Name of its folder.
        query: What was asked for.
        session_id: The session that its pages share; None when one page is all.
        page_size: Rows on a full page.
        total: Rows that the server reports; None if it did not say.
        pages: Pages, page 0 included.
        started_at: When page 0 was asked for.
        restarts: Fresh starts before this one in the same run.
        parts: What the pages after page 0 hold, in a stream in parts.
    """

    id: str
    query: SnapshotQuery
    session_id: str | None
    page_size: int
    total: int | None
    pages: int
    started_at: datetime.datetime
    restarts: int = 0
    parts: Parts | None = None

    def session_of(self, page: int) -> str | None:
        """What a page is asked for by: the session, or the name of its part."""
        return self.parts.names[page - 1] if self.parts is not None and page else self.session_id


@dataclass(frozen=True)
class PageResult(Outcome):
    """How the fetch of one page ended; its `error` may be of a page that came: too little of it did.

    Attributes:
        page_index: 0-based.
        rows: Rows staged.
        bytes: Size of the staged file.
        longest_line: Bytes of the longest staged row.
        digest: Of the staged rows, as content.
        ids_digest: Of the set of keys: equal for pages with the same rows, whatever their order.
        total: Rows in all as this page reports it.
        repairs: Characters replaced with U+FFFD because they were no Unicode text.
        missing: Rows due that did not come, of a page that came.
        lost_session: The page failed because its session is gone or was cut anew.
        is_answer: Whether Mixpanel sent it: page 0 of parts that the settings name is none.
    """

    page_index: int
    rows: int = 0
    bytes: int = 0
    longest_line: int = 0
    digest: str = ""
    ids_digest: str = ""
    total: int | None = None
    repairs: int = 0
    missing: int = 0
    lost_session: bool = False
    is_answer: bool = True

    @property
    def came(self) -> bool:
        """Whether its rows are staged, all that are due or some."""
        return bool(self.digest)

    @property
    def whole(self) -> bool:
        """Whether all its rows came, and can be stored."""
        return self.came and not self.failed and not self.missing and not self.rejected

    @property
    def brought(self) -> bool:
        return self.is_answer and (not self.failed or self.served > 0)

    @property
    def outcomes(self) -> "tuple[PageResult]":
        """As every stream tells of a page or chunk: this is its only part."""
        return (self,)

    @property
    def served(self) -> int:
        """Rows that came, those rejected included."""
        return self.rows + self.rejected


@dataclass(frozen=True)
class _StoredSnapshot(Snapshot):
    """A snapshot as it lies in its file; what its query is, its stream knows."""

    query: dict[str, Any]  # type: ignore[assignment]


# Made here, and not by the first step that reads: msgspec crashes when threads look into a class for the first time
# together.
_snapshot = msgspec.json.Decoder(_StoredSnapshot)
_page_result = msgspec.json.Decoder(PageResult)


_LOST = "session-lost"
# Lines are written so many at a time: most pages in one go.
_BLOCK_CHARACTERS = 2_000_000


class SnapshotFolder:
    """The files of one snapshot of a stream."""

    def __init__(self, staging: Staging, stream: SnapshotStream, snapshot_id: str) -> None:
        self.staging, self.stream, self.id = staging, stream, snapshot_id
        self.key = f"{stream.name}/{snapshot_id}"

    @property
    def path(self) -> Path:
        """The folder, of a place on this machine."""
        return local_path(self.staging, self.key)

    def write_snapshot(self, snapshot: Snapshot) -> None:
        """Keep what page 0 said."""
        self.staging.put(f"{self.key}/snapshot.json", msgspec.json.encode(snapshot))

    def read_snapshot(self) -> Snapshot | None:
        """What page 0 said, or None if these files are gone."""
        stored = read_manifest(self.staging, f"{self.key}/snapshot.json", _snapshot)
        if stored is None:
            return None
        return Snapshot(**{**vars(stored), "query": msgspec.convert(stored.query, self.stream.query)})

    def write_page(self, page: Page, counted_requests: int, attempts: Iterable[Attempt]) -> PageResult:
        """Stage the rows of a page; the result's manifest is written last."""
        measured = _Measured()
        self.staging.put(self.rows_key(page.page), measured.of(self._line_blocks(page)))
        if page.rejected:
            rejected = (
                {"source": f"page {page.page}", "row": row.row_number, "reason": row.reason, "text": row.text}
                for row in page.rejected
            )
            self.staging.put(self.rejected_key(page.page), (_lines([row]) for row in rejected))
        result = PageResult(
            page_index=page.page,
            rows=len(page.rows),
            bytes=measured.bytes,
            longest_line=measured.longest_line,
            digest=measured.digest.hexdigest(),
            ids_digest=_digest_of_ids(page),
            total=page.total,
            rejected=len(page.rejected),
            missing=page.missing,
            repairs=page.repairs,
            is_answer=page.page > 0 or self.stream.asks_first_page,
            counted_requests=counted_requests,
            attempts=tuple(attempts),
        )
        self.note(result)
        return result

    def note(self, result: PageResult) -> None:
        """Keep how the fetch of a page ended whose rows are staged."""
        self.staging.put(self._manifest(result.page_index), msgspec.json.encode(result))

    def read_page(self, page: int) -> PageResult | None:
        """The result of a page whose file is here, and whole."""
        result = read_manifest(self.staging, self._manifest(page), _page_result)
        is_whole = result is not None and self.staging.size(self.rows_key(page)) == result.bytes
        return result if is_whole else None

    def drop_page(self, page: int) -> None:
        """Forget a staged page that turned out to be wrong."""
        self.staging.delete([self._manifest(page), self.rows_key(page), self.rejected_key(page)])

    def claim(self, run_id: str) -> None:
        """Note a run that works with these files: they are nobody's once all such runs are over."""
        self.staging.claim(self.key, run_id)

    def mark_lost(self) -> None:
        """Remember that the session is gone, so that no further page is asked for under it."""
        self.staging.put(f"{self.key}/{_LOST}", b"")

    def is_lost(self) -> bool:
        """Whether some page found the session gone."""
        return self.staging.size(f"{self.key}/{_LOST}") is not None

    def working_folder(self) -> Path:
        """A folder of this machine in which what comes may lie while it is read."""
        return self.staging.working_folder(self.stream.name)

    def rows_key(self, page: int) -> str:
        """JSON lines: `page`, `row`, the key, the content (JSON as a string, so that it stays as served)."""
        return f"{self.key}/page-{page:05d}.jsonl"

    def rejected_key(self, page: int) -> str:
        """JSON lines: `source`, `row`, `reason`, `text`."""
        return f"{self.key}/page-{page:05d}.rejected.jsonl"

    def rows_file(self, page: int) -> Path:
        """The rows to be loaded."""
        return local_path(self.staging, self.rows_key(page))

    def rejected_file(self, page: int) -> Path:
        """The rows rejected, to be loaded."""
        return local_path(self.staging, self.rejected_key(page))

    def remove(self) -> None:
        """Delete the folder; a file that cannot be deleted now is left to `sweep`."""
        self.staging.delete_folder(self.key)

    def _line_blocks(self, page: Page) -> Iterator[bytes]:
        """The rows as lines, some megabytes at a time."""
        key, content, part = self.stream.key.name, self.stream.content, self.stream.part
        lines: list[dict[str, Any]] = []
        size = 0
        for number, row in enumerate(page.rows):
            line = {"page": page.page, "row": number, key: row.key}
            if content is not None:
                line[content.name] = row.content
            if part is not None:
                line[part.name] = page.part
            lines.append(line)
            size += len(row.key) + len(row.content or "")
            if size > _BLOCK_CHARACTERS:
                yield _lines(lines)
                lines, size = [], 0
        if lines:
            yield _lines(lines)

    def _manifest(self, page: int) -> str:
        return f"{self.key}/page-{page:05d}.json"


def new_snapshot_id() -> str:
    """A name that sorts by time and is never used twice."""
    return f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{uuid.uuid4().hex[:8]}"


class _Measured:
    """What is told of staged lines, measured while they are written."""

    def __init__(self) -> None:
        self.bytes = self.longest_line = 0
        self.digest = hashlib.sha256()

    def of(self, blocks: Iterable[bytes]) -> Iterator[bytes]:
        for block in blocks:
            self.bytes += len(block)
            self.longest_line = max(self.longest_line, *map(len, block.split(b"\n")))
            self.digest.update(block)
            yield block


def _digest_of_ids(page: Page) -> str:
    part = [] if page.part is None else [page.part]
    ids = [*part, *sorted(row.key for row in page.rows)]
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()


def _lines(rows: Iterable[dict[str, Any]]) -> bytes:
    return msgspec.json.Encoder().encode_lines(rows)


@dataclass(frozen=True)
class StagedSnapshot:
    """Pages that came, and how they may be published.

    Attributes:
        stream: What they are pages of.
        snapshot: The snapshot they belong to.
        pages: The pages whose rows are staged.
        failed: Those to be fetched again: they did not come, or short.
        folder: Where.
        complete: Whether they are all pages with all rows that were due, none rejected.
        total: Rows that there should be, None if the server does not say.
        max_removed_fraction: Largest share of the stored rows that a complete snapshot may remove.
        schema: Where the tables are.
        keep_history: Whether what rows were is to be kept from now on.
    """

    stream: SnapshotStream
    snapshot: Snapshot
    pages: tuple[PageResult, ...]
    failed: tuple[PageResult, ...]
    folder: SnapshotFolder
    complete: bool
    total: int | None
    max_removed_fraction: float
    schema: str = SCHEMA
    keep_history: bool = False

    @property
    def table(self) -> str:
        """Where they go."""
        return self.stream.name

    @property
    def source(self) -> str | None:
        """Whose rows they are."""
        return self.snapshot.query.source

    def part_of(self, page: PageResult) -> str | None:
        """The part that a page holds, in a stream in parts; page 0 holds none."""
        parts = self.snapshot.parts
        return parts.names[page.page_index - 1] if parts is not None and page.page_index else None

    @property
    def empty_parts(self) -> list[str]:
        """The parts that came and have no row; none in a stream without parts."""
        return [part for page in self.pages if (part := self.part_of(page)) and page.came and not page.rows]

    def drop(self) -> None:
        """Delete what is stored now, unless pages are to be fetched again and joined with it."""
        if not self.failed:
            self.folder.remove()

    @contextmanager
    def local(self) -> Iterator["StagedSnapshot"]:
        """The same with the files that are loaded in a folder of this machine, until the end of the block."""
        folder = self.folder
        keys = [folder.rows_key(page.page_index) for page in self.pages if page.rows]
        keys += [folder.rejected_key(page.page_index) for page in self.pages if page.rejected]
        with folder.staging.local(keys) as here:
            yield replace(self, folder=SnapshotFolder(here, self.stream, folder.id))
