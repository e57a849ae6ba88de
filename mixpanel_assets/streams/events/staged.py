"""Fetched chunks of events as files, between Mixpanel and DuckDB: each run has a folder, each range of days a file.

    staging/events/<run>/2026-01-01_2026-01-07.parquet           the events, as columns.py writes them
                         2026-01-01_2026-01-07.rejected.jsonl    lines that cannot be stored, if any
                         2026-01-01_2026-01-07.json              how the fetch went: written last

The file's presence with its manifest means that it is whole. What a finished run leaves here was never stored: the next
run takes it over instead of asking for it again. Versions before kept .jsonl files here; those do not count.
"""

import datetime
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import BinaryIO, ClassVar, TypeVar

import msgspec

from mixpanel_assets import private_files
from mixpanel_assets.client.served_days import Unserved
from mixpanel_assets.settings import SCHEMA
from mixpanel_assets.storage.staging import Staging, disk_errors, local_path, read_manifest
from mixpanel_assets.streams.events.lines import RejectedLine
from mixpanel_assets.streams.events.query import EventsQuery
from mixpanel_assets.streams.outcome import Outcome


@dataclass(frozen=True)
class RangeResult(Outcome):
    """How the fetch of a range of days ended: its events are staged, or there is an error, or nothing to fetch.

    Attributes:
        from_date: First day, ISO.
        to_date: Last day, inclusive.
        folder: Name of the folder that the file lies in.
        query: What was asked for.
        lines: Events staged.
        bytes: Size of the staged file.
        repaired: Lines stored with a mended text, and rejected as served.
        asked_at: When the request that succeeded was sent.
        unserved: Why the server serves none of these days: they neither came nor failed.
    """

    from_date: str
    to_date: str
    folder: str
    query: EventsQuery
    lines: int = 0
    bytes: int = 0
    repaired: int = 0
    asked_at: datetime.datetime | None = None
    unserved: Unserved | None = None

    @property
    def came(self) -> bool:
        """Whether the events are staged."""
        return self.error is None and self.unserved is None

    @property
    def brought(self) -> bool:
        return self.came


E = TypeVar("E", bound="StagedEvents")

_STREAM = "events"
# Made here for the same reason as those of pages.py.
_range_result = msgspec.json.Decoder(RangeResult)


class EventsFolder:
    """The files of one run."""

    def __init__(self, staging: Staging, name: str) -> None:
        self._staging, self._name = staging, name
        self.key = f"{_STREAM}/{name}"

    @property
    def path(self) -> Path:
        """The folder, of a place on this machine."""
        return local_path(self._staging, self.key)

    @contextmanager
    def new_name(self) -> Iterator[Path]:
        """A name for a file of this machine, which is deleted at the end unless it was placed."""
        folder = self._staging.working_folder(self.key)
        with disk_errors(folder):
            file = folder / f"{uuid.uuid4().hex}.partial"
            try:
                yield file
            finally:
                file.unlink(missing_ok=True)

    @contextmanager
    def new_file(self) -> Iterator[tuple[Path, BinaryIO]]:
        """A file under a name of its own, open to write, deleted at the end."""
        with self.new_name() as file, private_files.open_to_write(file) as stream:
            yield file, stream

    def place(self, file: Path, result: RangeResult, lines: Iterable[RejectedLine]) -> RangeResult:
        """Give a verified file its key. It counts once `sign` has written the manifest."""
        rejected = msgspec.json.Encoder().encode_lines(lines)
        if rejected:
            self._staging.put(self.rejected_key(result), rejected)
        private_files.keep_to_owner(file)  # DuckDB made it.
        placed = replace(result, bytes=file.stat().st_size)
        self._staging.put_file(self.events_key(result), file)
        return placed

    def sign(self, result: RangeResult) -> RangeResult:
        """Write the manifest of a placed file: from here on the range is staged."""
        self._staging.put(self._manifest(result), msgspec.json.encode(result))
        return result

    def holds(self, result: RangeResult) -> bool:
        """Whether the events of a result are here, and whole."""
        return self._staging.size(self.events_key(result)) == result.bytes

    def staged(self, wanted: RangeResult) -> RangeResult | None:
        """The range with the days and the query of another, if it is here, and whole."""
        result = read_manifest(self._staging, self._manifest(wanted), _range_result)
        alike = result is not None and result.query == wanted.query and self.holds(result)
        return result if alike else None

    def results(self) -> list[RangeResult]:
        """All ranges that are here, and whole."""
        manifests = [name for name in self._staging.names(self.key) if fnmatch(name, "*_*.json")]
        found = [read_manifest(self._staging, f"{self.key}/{name}", _range_result) for name in manifests]
        return [result for result in found if result is not None and self.holds(result)]

    def take_over(self, result: RangeResult, other: "EventsFolder") -> RangeResult | None:
        """Move a range of another folder here. None if it is gone: somebody else took it."""
        mine = replace(result, folder=self._name)
        # The manifest first: only one can take it, and without it the rest belongs to nobody.
        if not self._staging.take(other._manifest(result)):
            return None
        try:
            if self._staging.size(other.rejected_key(result)) is not None:
                self._staging.move(other.rejected_key(result), self.rejected_key(mine))
            self._staging.move(other.events_key(result), self.events_key(mine))
        except FileNotFoundError:
            return None
        return self.sign(mine)

    def keep_only(self, results: Iterable[RangeResult]) -> None:
        """Delete all but these ranges: others, and what is no whole range; and the folder with the last file."""
        kept = {key for each in results for key in self._keys(each)}
        there = [f"{self.key}/{name}" for name in self._staging.names(self.key)]
        self._staging.delete([key for key in there if key not in kept])
        if not kept.intersection(there):
            self._staging.delete_folder(self.key)

    def drop(self, result: RangeResult) -> None:
        """Delete a range that is stored; and the folder with the last one."""
        self._staging.delete(self._keys(result))

    def events_key(self, result: RangeResult) -> str:
        """Parquet, with the columns of columns.py."""
        return f"{self.key}/{result.from_date}_{result.to_date}.parquet"

    def rejected_key(self, result: RangeResult) -> str:
        """JSON lines: `row`, `reason`, `text`, `stored`."""
        return f"{self.key}/{result.from_date}_{result.to_date}.rejected.jsonl"

    def events_file(self, result: RangeResult) -> Path:
        """The events to be loaded."""
        return local_path(self._staging, self.events_key(result))

    def rejected_file(self, result: RangeResult) -> Path:
        """The lines rejected, to be loaded."""
        return local_path(self._staging, self.rejected_key(result))

    def keys_to_load(self, result: RangeResult) -> list[str]:
        """The files that DuckDB reads."""
        aside = [self.rejected_key(result)] if result.rejected or result.repaired else []
        return [self.events_key(result), *aside]

    def _keys(self, result: RangeResult) -> tuple[str, str, str]:
        return self._manifest(result), self.events_key(result), self.rejected_key(result)

    def _manifest(self, result: RangeResult) -> str:
        return f"{self.key}/{result.from_date}_{result.to_date}.json"


@dataclass(frozen=True)
class StagedEvents:
    """Ranges that came, and where they lie.

    Attributes:
        staging: The place.
        ranges: The ranges whose events are staged, no day twice; a filtered one replaces only what it could have
            served.
        failed: The ranges that did not come.
        unserved: The ranges that the server does not serve.
        today: The project's present day, ISO: days before it are over, and are guarded. Empty: none is.
        max_removed_fraction: Largest share of the stored rows of a day that is over that an answer may lack.
        zone: Whose wall clock `time` shows; None: UTC's.
        schema: Where the tables are.
    """

    staging: Staging
    ranges: tuple[RangeResult, ...]
    failed: tuple[RangeResult, ...] = ()
    unserved: tuple[RangeResult, ...] = ()
    today: str = ""
    max_removed_fraction: float = 1.0
    zone: str | None = None
    schema: str = SCHEMA
    table: ClassVar = "events"

    @property
    def source(self) -> str | None:
        """Whose events they are."""
        return next((part.query.source for part in self.ranges), None)

    def drop(self) -> None:
        """Delete the staged files."""
        for result in self.ranges:
            EventsFolder(self.staging, result.folder).drop(result)

    @contextmanager
    def local(self: E) -> Iterator[E]:
        """The same with the files that are loaded in a folder of this machine, until the end of the block."""
        folders = {part.folder: EventsFolder(self.staging, part.folder) for part in self.ranges}
        keys = [key for part in self.ranges for key in folders[part.folder].keys_to_load(part)]
        with self.staging.local(keys) as here:
            yield replace(self, staging=here)


@dataclass(frozen=True)
class StagedSample(StagedEvents):
    """Events of a query with a limit: they tell of no day that it is whole, and are kept apart."""

    table: ClassVar = "events_sample"
