"""A chunk of events from the request to its staged files, and what of a plan came: the rules without Dagster.

assets.py runs them as ops. A range that fails is a result with a reason, never an exception, because the others
are worth keeping.
"""

import datetime
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from mixpanel_assets.client.answer import TooSlowError
from mixpanel_assets.client.client import MixpanelClient
from mixpanel_assets.client.retry import Retrier
from mixpanel_assets.client.served_days import Edge, EdgeRefusedError, ServedDays, Unserved, narrower, shifted
from mixpanel_assets.errors import FatalError, MixpanelError, WarehouseError, kind_of
from mixpanel_assets.storage.staging import Staging
from mixpanel_assets.streams.days import MAX_CHUNK_DAYS, days_between, days_per_request, ranges_of, split_date_range
from mixpanel_assets.streams.events.columns import write_columns
from mixpanel_assets.streams.events.fetch import save_export
from mixpanel_assets.streams.events.lines import repair_lines
from mixpanel_assets.streams.events.query import EventsQuery
from mixpanel_assets.streams.events.staged import EventsFolder, RangeResult
from mixpanel_assets.streams.events.wire import BrokenExportError

Range = tuple[str, str]


class TooMuchAtOnceError(FatalError):
    """Time ran out, Mixpanel's or ours, on a range of several days: fewer may succeed."""


@dataclass(frozen=True)
class Chunk:
    """Days from the first to the last, inclusive ISO dates, and which of their events are asked for."""

    from_date: str
    to_date: str
    query: EventsQuery


@dataclass(frozen=True)
class EventsPlan:
    """What a run is to fetch.

    Attributes:
        folder: Name of its staging folder.
        chunks: In order, no day twice. Their queries differ where days are retried that failed in several syncs.
        started_at: When the run began to fetch.
        today: The project's present day then, ISO.
        max_removed_fraction: Largest share of the stored rows of a day that is over that an answer may lack.
        zone: Whose wall clock `time` of an event shows; None: UTC's.
    """

    folder: str
    chunks: tuple[Chunk, ...]
    started_at: datetime.datetime
    today: str = ""
    max_removed_fraction: float = 0.5
    zone: str | None = None

    def order(self, index: int) -> "ChunkOrder":
        """The order to fetch one of the chunks."""
        return ChunkOrder(index, len(self.chunks), self.chunks[index], self.folder, self.today)


@dataclass(frozen=True)
class ChunkOrder:
    """One chunk to fetch. It does not hold the plan, as there may be a thousand of both.

    Attributes:
        index: Its place among all, from 0.
        total: How many there are.
        chunk: The chunk.
        folder: Name of its staging folder.
        today: The project's present day when the run began, ISO.
    """

    index: int
    total: int
    chunk: Chunk
    folder: str
    today: str = ""

    @property
    def wanted(self) -> RangeResult:
        """The chunk as the result that is to come of it."""
        return RangeResult(self.chunk.from_date, self.chunk.to_date, self.folder, self.chunk.query)


@dataclass(frozen=True)
class ChunkResult:
    """How the fetch of one chunk ended: one range, or several if it had to be split; in order."""

    index: int
    ranges: tuple[RangeResult, ...]

    @property
    def came(self) -> bool:
        """Whether all of it is staged that the server serves."""
        return not any(part.failed for part in self.ranges)

    @property
    def outcomes(self) -> tuple[RangeResult, ...]:
        """As every stream tells of a page or chunk."""
        return self.ranges

    @property
    def rows(self) -> int:
        """Events staged."""
        return sum(part.lines for part in self.ranges)

    @property
    def error(self) -> str | None:
        """Why it did not come, or not all of it."""
        return next((part.error for part in self.ranges if part.error is not None), None)


def chunks_of(days: Mapping[str, EventsQuery], chunk_days: int | None) -> list[Chunk]:
    """The chunks that tile the days, each day under its query; see `days_per_request` for chunk_days.

    Raises:
        ValueError: chunk_days is out of bounds; in one line.
    """
    chunks = [
        Chunk(first, last, query)
        for query in dict.fromkeys(days.values())
        for from_date, to_date in ranges_of(day for day in days if days[day] == query)
        for first, last in split_date_range(from_date, to_date, days_per_request(chunk_days, len(days)))
    ]
    return sorted(chunks, key=lambda chunk: chunk.from_date)


def fetch_chunk(client: MixpanelClient, staging: Staging, order: ChunkOrder, log: logging.Logger) -> ChunkResult:
    """Fetch one chunk into its folder, unless it lies there already."""
    folder = EventsFolder(staging, order.folder)
    staged = folder.staged(order.wanted)
    if staged:
        return ChunkResult(order.index, (staged,))
    parts = _Ranges(client, folder, order.today, log).fetch(order.wanted)
    return ChunkResult(order.index, tuple(sorted(parts, key=lambda part: part.from_date)))


def sample_of(days: Mapping[str, EventsQuery]) -> list[Chunk]:
    """All days in one chunk, as a limit is for one request.

    Raises:
        ValueError: one request serves fewer days; in one line.
    """
    if len(days) > MAX_CHUNK_DAYS:
        raise ValueError(f"limit is for one request, of at most {MAX_CHUNK_DAYS} days: {len(days)} are too many")
    return chunks_of(days, MAX_CHUNK_DAYS)


def settle(staging: Staging, plan: EventsPlan, results: Iterable[ChunkResult]) -> list[ChunkResult]:
    """One result for every chunk of the plan, in order: what nobody told of, or is gone, has failed."""
    told = {result.index: result for result in results}
    settled = []
    for index, chunk in enumerate(plan.chunks):
        missing = replace(plan.order(index).wanted, error=f"{chunk.from_date} to {chunk.to_date}: never fetched")
        result = told.get(index, ChunkResult(index, (missing,)))
        settled.append(replace(result, ranges=tuple(_still_there(staging, part) for part in result.ranges)))
    return settled


def without_refused(
    results: Iterable[ChunkResult], refused: Mapping[tuple[str, EventsQuery], str]
) -> list[ChunkResult]:
    """The results with the days that were not stored as failed; `refused` gives the reason by day and query."""
    return [
        replace(result, ranges=tuple(part for whole in result.ranges for part in _split(whole, refused)))
        for result in results
    ]


def is_sample(results: Iterable[ChunkResult]) -> bool:
    """Whether no more than some of the events were asked for."""
    return any(part.query.limit is not None for result in results for part in result.ranges)


def stored_days(results: Iterable[ChunkResult]) -> dict[str, EventsQuery]:
    """The days that came, in order, with what was asked of each."""
    parts = [part for result in results for part in result.ranges if part.came]
    return {day: part.query for part in parts for day in days_between(part.from_date, part.to_date)}


def failed_ranges(results: Iterable[ChunkResult]) -> list[Range]:
    """The ranges that did not come, as few as possible."""
    parts = [part for result in results for part in result.ranges if part.failed]
    return ranges_of(day for part in parts for day in days_between(part.from_date, part.to_date))


def unserved_ranges(results: Iterable[ChunkResult], edge: Edge) -> tuple[list[Range], str]:
    """The ranges that the server does not serve, as few as possible, and its words; none, and no words."""
    parts = [part for result in results for part in result.ranges if part.unserved and part.unserved.edge is edge]
    days = [day for part in parts for day in days_between(part.from_date, part.to_date)]
    return ranges_of(days), next((part.unserved.said for part in parts if part.unserved), "")


@dataclass(frozen=True)
class _Ranges:
    """Fetches the ranges of one chunk, in several parts where the server wants it.

    `doubted` are days that the server refuses as too old or not there yet, which by our clock they cannot be: they have
    failed, and nothing follows from it for other chunks.
    """

    client: MixpanelClient
    folder: EventsFolder
    today: str
    log: logging.Logger
    doubted: ServedDays = field(default_factory=ServedDays)

    def fetch(self, wanted: RangeResult, step: int = 1) -> list[RangeResult]:
        """The range as it came or failed, without what the server has said not to serve; `step` is how many days less
        are asked for if it refuses an edge."""
        days, unserved = self.client.served_days.cut((wanted.from_date, wanted.to_date))
        parts = [_of(each, wanted, unserved=why) for each, why in unserved]
        if days:
            days, doubted = self.doubted.cut(days)
            parts += [_doubted(_of(each, wanted), why) for each, why in doubted]
        return [*parts, *self._ask(_of(days, wanted), step)] if days else parts

    def _ask(self, wanted: RangeResult, step: int) -> list[RangeResult]:
        retrier = self.client.retrier(self.log)
        try:
            result = retrier.call(lambda: _attempt(self.client, self.folder, wanted, retrier))
            return [self.folder.sign(_with_requests(result, retrier))]
        except EdgeRefusedError as error:
            days = (wanted.from_date, wanted.to_date)
            known = self.doubted if self._is_doubtful(error.unserved.edge, days) else self.client.served_days
            known.note(error, days, self._earliest_today())
            halves = [_of(each, wanted) for each in narrower(days, error.unserved.edge, step)]
            step *= 2
        except TooMuchAtOnceError as error:
            if wanted.query.limit is not None:  # It is for all days together.
                return [_failed(wanted, error, retrier)]
            halves = _halves(wanted)
            named = " and ".join(f"{half.from_date} to {half.to_date}" for half in halves)
            self.log.warning(f"{error}; asking for {named} instead")
        except MixpanelError as error:
            return [_failed(wanted, error, retrier)]
        first, *others = [part for half in halves for part in self.fetch(half, step)]
        return [_with_requests(first, retrier), *others]

    def _is_doubtful(self, edge: Edge, days: Range) -> bool:
        if not self.today:
            return False
        # Between the first and the last time zone on earth lie 26 hours.
        return days[0] >= self.today if edge is Edge.TOO_OLD else days[1] < shifted(self.today, -2)

    def _earliest_today(self) -> str:
        """Today where the server may count: a day less of history may be served than one too many left out."""
        utc = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
        return min(self.today or utc, utc)


def _attempt(client: MixpanelClient, folder: EventsFolder, wanted: RangeResult, retrier: Retrier) -> RangeResult:
    """Ask once, and stage what came if every line of it is whole."""
    what = f"events of {wanted.from_date} to {wanted.to_date}"
    asked_at = datetime.datetime.now(datetime.timezone.utc)
    with folder.new_file() as (file, stream), folder.new_name() as columns:
        try:
            lines = save_export(client, wanted.query, wanted.from_date, wanted.to_date, stream, retrier)
        except TooSlowError as error:
            if wanted.from_date == wanted.to_date:
                raise
            raise TooMuchAtOnceError(str(error)) from None
        stream.close()  # Windows renames no open file.
        if write_columns(file, lines, columns, what):
            return folder.place(columns, replace(wanted, lines=lines, asked_at=asked_at), ())
        with folder.new_file() as (straight_file, target):
            made = repair_lines(file, target, what, client.texts)
            target.close()
            if not write_columns(straight_file, made.lines, columns, what):
                raise BrokenExportError(f"{what}: DuckDB cannot read a line that is JSON otherwise")
            result = replace(
                wanted,
                lines=made.lines,
                rejected=len(made.rejected) - made.repaired,
                repaired=made.repaired,
                asked_at=asked_at,
            )
            return folder.place(columns, result, made.rejected)


def _with_requests(result: RangeResult, retrier: Retrier) -> RangeResult:
    return replace(
        result,
        counted_requests=retrier.counted_requests + result.counted_requests,
        attempts=(*retrier.attempts, *result.attempts),
    )


def _failed(wanted: RangeResult, error: MixpanelError, retrier: Retrier) -> RangeResult:
    return _with_requests(replace(wanted, error=str(error), error_kind=kind_of(error)), retrier)


def _doubted(part: RangeResult, why: Unserved) -> RangeResult:
    what = f"events of {part.from_date} to {part.to_date}"
    said = f"Mixpanel takes these days for {why.edge.value} ones ({why.said}), against our clock"
    return replace(part, error=f"{what}: {said}: check it and MP_TIMEZONE", error_kind=FatalError.__name__)


def _of(days: Range, wanted: RangeResult, unserved: Unserved | None = None) -> RangeResult:
    return replace(wanted, from_date=days[0], to_date=days[1], unserved=unserved)


def _halves(wanted: RangeResult) -> list[RangeResult]:
    days = days_between(wanted.from_date, wanted.to_date)
    halves = split_date_range(wanted.from_date, wanted.to_date, (len(days) + 1) // 2)
    return [_of(half, wanted) for half in halves]


def _split(part: RangeResult, refused: Mapping[tuple[str, EventsQuery], str]) -> list[RangeResult]:
    """The range as its days ended; what was counted for the whole stays with the first part."""
    reasons = {day: refused.get((day, part.query)) for day in days_between(part.from_date, part.to_date)}
    if not part.came or not any(reasons.values()):
        return [part]
    alike = [
        (first, last, reason)
        for reason in dict.fromkeys(reasons.values())
        for first, last in ranges_of(day for day in reasons if reasons[day] == reason)
    ]
    parts = [
        replace(part, from_date=first, to_date=last, error=reason, error_kind=WarehouseError.__name__ if reason else "")
        for first, last, reason in sorted(alike, key=lambda each: each[0])
    ]
    return [
        parts[0],
        *(replace(each, lines=0, rejected=0, repaired=0, counted_requests=0, attempts=()) for each in parts[1:]),
    ]


def _still_there(staging: Staging, part: RangeResult) -> RangeResult:
    if not part.came or EventsFolder(staging, part.folder).holds(part):
        return part
    return replace(part, error=f"events of {part.from_date} to {part.to_date}: the staged file is gone")
