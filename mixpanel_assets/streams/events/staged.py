"""Fetched chunks of events as files, between Mixpanel and DuckDB: each run has a folder, each range of days a file.

    staging/events/<run>/2026-01-01_2026-01-07.parquet           the events, as columns.py writes them
                         2026-01-01_2026-01-07.rejected.jsonl    lines that cannot be stored, if any
                         2026-01-01_2026-01-07.json              how the fetch went: written last

The file's presence with its manifest means that it is whole. What a finished run leaves here was never stored: the next
run takes it over instead of asking for it again. Versions before kept .jsonl files here; those do not count.
"""

import contextlib
import datetime
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, ClassVar

import msgspec

from mixpanel_assets import private_files
from mixpanel_assets.client.served_days import Unserved
from mixpanel_assets.settings import SCHEMA
from mixpanel_assets.storage.staging import disk_errors, read_manifest, write_whole
from mixpanel_assets.streams.events.lines import SetAside
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
        repaired: Lines stored with a mended text, and set aside as served.
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


# Made here for the same reason as those of pages.py.
_range_result = msgspec.json.Decoder(RangeResult)


class EventsFolder:
    """The files of one run."""

    def __init__(self, root: Path, name: str) -> None:
        self.path = root / "events" / name

    @contextmanager
    def new_name(self) -> Iterator[Path]:
        """A name for a file, which is deleted at the end unless it was moved."""
        with disk_errors(self.path):
            # Events are personal data: only the user who syncs may read them.
            private_files.make_folder(self.path)
            file = self.path / f"{uuid.uuid4().hex}.partial"
            try:
                yield file
            finally:
                file.unlink(missing_ok=True)

    @contextmanager
    def new_file(self) -> Iterator[tuple[Path, BinaryIO]]:
        """A file under a name of its own, open to write, deleted at the end."""
        with self.new_name() as file, private_files.open_to_write(file) as stream:
            yield file, stream

    def place(self, file: Path, result: RangeResult, set_aside: Iterable[SetAside]) -> RangeResult:
        """Give a verified file its name. It counts once `sign` has written the manifest."""
        rejected = msgspec.json.Encoder().encode_lines(set_aside)
        if rejected:
            write_whole(self.rejected_file(result), rejected)
        with disk_errors(self.path):
            private_files.keep_to_owner(file)  # DuckDB made it.
            file.replace(self.events_file(result))
        return replace(result, bytes=self.events_file(result).stat().st_size)

    def sign(self, result: RangeResult) -> RangeResult:
        """Write the manifest of a placed file: from here on the range is staged."""
        write_whole(self._manifest(result), msgspec.json.encode(result))
        return result

    def holds(self, result: RangeResult) -> bool:
        """Whether the events of a result are here, and whole."""
        file = self.events_file(result)
        return file.is_file() and file.stat().st_size == result.bytes

    def staged(self, wanted: RangeResult) -> RangeResult | None:
        """The range with the days and the query of another, if it is here, and whole."""
        result = read_manifest(self._manifest(wanted), _range_result)
        alike = result is not None and result.query == wanted.query and self.holds(result)
        return result if alike else None

    def results(self) -> list[RangeResult]:
        """All ranges that are here, and whole."""
        found = [read_manifest(file, _range_result) for file in sorted(self.path.glob("*_*.json"))]
        return [result for result in found if result is not None and self.holds(result)]

    def take_over(self, result: RangeResult, other: "EventsFolder") -> RangeResult | None:
        """Move a range of another folder here. None if it is gone: somebody else took it."""
        mine = replace(result, folder=self.path.name)
        try:
            # The manifest first: only one can move it, and without it the rest belongs to nobody.
            claim = self._made() / f"{uuid.uuid4().hex}.partial"
            other._manifest(result).replace(claim)
            claim.unlink()
            if other.rejected_file(result).exists():
                other.rejected_file(result).replace(self.rejected_file(mine))
            other.events_file(result).replace(self.events_file(mine))
        except FileNotFoundError:
            return None
        return self.sign(mine)

    def keep_only(self, results: Iterable[RangeResult]) -> None:
        """Delete all but these ranges: others, and what is no whole range; and the folder with the last file."""
        kept = {file for each in results for file in self._files(each)}
        for file in self.path.glob("*"):
            if file not in kept:
                with contextlib.suppress(OSError):
                    file.unlink()
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def drop(self, result: RangeResult) -> None:
        """Delete a range that is stored; and the folder with the last one. What cannot be deleted is left to `sweep`:
        Windows keeps a file that somebody reads, and the events are stored.
        """
        for file in self._files(result):
            with contextlib.suppress(OSError):
                file.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def events_file(self, result: RangeResult) -> Path:
        """Parquet, with the columns of columns.py."""
        return self.path / f"{result.from_date}_{result.to_date}.parquet"

    def rejected_file(self, result: RangeResult) -> Path:
        """JSON lines: `row`, `reason`, `text`, `stored`."""
        return self.path / f"{result.from_date}_{result.to_date}.rejected.jsonl"

    def _files(self, result: RangeResult) -> tuple[Path, Path, Path]:
        return self._manifest(result), self.events_file(result), self.rejected_file(result)

    def _manifest(self, result: RangeResult) -> Path:
        return self.path / f"{result.from_date}_{result.to_date}.json"

    def _made(self) -> Path:
        private_files.make_folder(self.path)
        return self.path


@dataclass(frozen=True)
class StagedEvents:
    """Ranges that came, and where they lie.

    Attributes:
        root: The staging folder.
        ranges: The ranges whose events are staged, no day twice; a filtered one replaces only what it could have
            served.
        failed: The ranges that did not come.
        unserved: The ranges that the server does not serve.
        today: The project's present day, ISO: days before it are over, and are guarded. Empty: none is.
        max_removed_fraction: Largest share of the stored rows of a day that is over that an answer may lack.
        zone: Whose wall clock `time` shows; None: UTC's.
        schema: Where the tables are.
    """

    root: Path
    ranges: tuple[RangeResult, ...]
    failed: tuple[RangeResult, ...] = ()
    unserved: tuple[RangeResult, ...] = ()
    today: str = ""
    max_removed_fraction: float = 1.0
    zone: str | None = None
    schema: str = SCHEMA
    table: ClassVar = "events"

    def drop(self) -> None:
        """Delete the staged files."""
        for result in self.ranges:
            EventsFolder(self.root, result.folder).drop(result)


@dataclass(frozen=True)
class StagedSample(StagedEvents):
    """Events of a query with a limit: they tell of no day that it is whole, and are kept apart."""

    table: ClassVar = "events_sample"
