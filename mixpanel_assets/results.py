"""What the Python functions and `mp` hand out: frozen dataclasses that turn into JSON.

Plain values only, but for the table that they tell of; nothing of Dagster, nothing that computes. Times are aware
datetimes in UTC, durations are seconds.
"""

import dataclasses
import datetime
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb


class Result:
    """A dataclass that can say itself as JSON."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: tuples as lists, times as ISO strings."""
        return {
            field.name: _plain(getattr(self, field.name))
            for field in dataclasses.fields(self)  # type: ignore[arg-type]  # every subclass is a dataclass
        }


@dataclass(frozen=True)
class SyncResult(Result):
    """A sync that stored something: in the table `table` of the DuckDB file `database`."""

    database: str
    table: str

    @property
    def has_failures(self) -> bool:
        """Whether a page or a date range is missing."""
        raise NotImplementedError

    def relation(self) -> "duckdb.DuckDBPyRelation":
        """The whole table, as it is now, for `.df()`, `.pl()`, `.arrow()` or further queries.

        No other process can open the file while the relation lives; syncs of this process can. With DuckDB 1.4 what is
        made out of it ends with it, so keep it in a variable.

        Raises:
            duckdb.Error: the file cannot be opened, as another process has it open, or the table is gone.
        """
        import duckdb

        connection = duckdb.connect(self.database)
        [(catalog,)] = connection.execute("select current_database()").fetchall()
        quoted = str(catalog).replace('"', '""')
        relation = connection.sql(f'from "{quoted}".{self.table}')
        weakref.finalize(relation, _let_go, connection)  # DuckDB 1.4 closes a connection that nobody else holds.
        return relation

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, with `has_failures`."""
        return {**super().to_dict(), "has_failures": self.has_failures}


@dataclass(frozen=True)
class ProfileBatchProgress(Result):
    """One page of profiles is finished, well or not.

    Attributes:
        page_index: 0-based.
        total_pages: Pages of the snapshot, page 0 included.
        rows: Profiles that came.
        success: Whether they are staged, to be stored when all pages are finished.
        error: Why not, in one line.
    """

    page_index: int
    total_pages: int
    rows: int
    success: bool
    error: str | None = None


@dataclass(frozen=True)
class ParallelProfileFetchResult(SyncResult):
    """A sync of profiles; `total_rows` counts the distinct profiles that came."""

    total_rows: int
    successful_pages: int
    failed_pages: int
    failed_page_indices: tuple[int, ...]
    duration_seconds: float
    fetched_at: datetime.datetime

    @property
    def has_failures(self) -> bool:
        """Whether a page is missing."""
        return self.failed_pages > 0

    @property
    def words(self) -> str:
        """What is missing, in a line."""
        pages = ", ".join(str(page) for page in self.failed_page_indices)
        return f"{self.failed_pages} of {self.successful_pages + self.failed_pages} pages failed: {pages}"


@dataclass(frozen=True)
class BatchResult(Result):
    """How one chunk of events ended; both dates are inclusive ISO dates."""

    from_date: str
    to_date: str
    rows: int
    success: bool
    error: str | None = None


@dataclass(frozen=True)
class BatchProgress(Result):
    """One chunk of events is finished, well or not; both dates are inclusive ISO dates."""

    from_date: str
    to_date: str
    batch_index: int
    total_batches: int
    rows: int
    success: bool
    error: str | None = None


@dataclass(frozen=True)
class ParallelFetchResult(SyncResult):
    """A sync of events; `total_rows` counts the distinct ones that came, `failed_date_ranges` are inclusive pairs of
    ISO dates.
    """

    total_rows: int
    successful_batches: int
    failed_batches: int
    failed_date_ranges: tuple[tuple[str, str], ...]
    duration_seconds: float
    fetched_at: datetime.datetime

    @property
    def has_failures(self) -> bool:
        """Whether a date range is missing."""
        return self.failed_batches > 0

    @property
    def words(self) -> str:
        """What is missing, in a line."""
        days = ", ".join(" to ".join(days) for days in self.failed_date_ranges)
        return f"{self.failed_batches} of {self.successful_batches + self.failed_batches} chunks failed: {days}"


@dataclass(frozen=True)
class FetchResult(SyncResult):
    """A sequential sync. `type` is "profiles" or "events"; `date_range` is None for profiles; `has_failures`: whether a
    page or a date range is missing, then an IncompleteSyncError brings the result.
    """

    rows: int
    type: str
    duration_seconds: float
    date_range: tuple[str, str] | None
    fetched_at: datetime.datetime
    has_failures: bool = False


def _let_go(connection: object) -> None:
    """Nothing: to be its argument until now was all."""


def _plain(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value.isoformat() if isinstance(value, datetime.datetime) else value
