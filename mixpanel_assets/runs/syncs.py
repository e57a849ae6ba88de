"""A sync of one asset, from its settings to its result: what `mp` and the Python functions have in common.

Belongs here: turning settings into a run's config, and what the run says into progress and results. Does not belong
here: the run (run.py), who asks (fetch.py, cli/), how it looks (progress.py).
"""

import datetime
import logging
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from types import NoneType
from typing import Any, Protocol, get_args

import dagster as dg
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

from mixpanel_assets import arguments, partitions, settings
from mixpanel_assets.errors import ConfigurationError, MixpanelAssetsError, MixpanelError
from mixpanel_assets.pools import POOL_CEILINGS, POOL_LIMITS
from mixpanel_assets.results import (
    BatchProgress,
    FetchResult,
    ParallelFetchResult,
    ParallelProfileFetchResult,
    ProfileBatchProgress,
)
from mixpanel_assets.runs.instances import open_instance, prepare_home
from mixpanel_assets.runs.run import Metadata, RunOrder, RunReport, run_asset
from mixpanel_assets.streams.all import STREAMS
from mixpanel_assets.streams.days import days_per_request, split_date_range
from mixpanel_assets.streams.stream import Stream

# How a setting is read: as its type says, or as something that its type cannot say.
_KINDS: Mapping[object, Callable[[str, object], Any]] = {
    bool: arguments.truth,
    int: arguments.whole_number,
    float: arguments.number,
    str: arguments.text,
    list[str]: arguments.names,
    list[int]: arguments.whole_numbers,
    dict[str, str]: arguments.digits_by_name,
    "behaviors": arguments.json_text,
    "data_group_id": arguments.digits,
    "from_date": arguments.day,
    "to_date": arguments.day,
}


class FewerWorkersWarning(UserWarning):
    """More workers were wished for than Mixpanel would answer."""


class Watcher(Protocol):
    """Who looks on while a sync runs."""

    def expect(self, units: int, *, anew: bool) -> None:
        """So many pages or chunks are fetched in all; `anew`: those before do not count, as their session was lost."""

    def finished(self, update: Any) -> None:
        """One page or chunk is finished: a ProfileBatchProgress or BatchProgress."""

    def say(self, level: int, text: str) -> None:
        """A line for people; called from any thread."""


@dataclass(frozen=True)
class Synced:
    """A sync that stored something.

    Attributes:
        stream: Of what.
        result: What is stored.
        problems: What is wrong with it, in words; empty: all is stored.
        days: The days that were asked for, of events.
    """

    stream: Stream
    result: ParallelFetchResult | ParallelProfileFetchResult
    problems: tuple[str, ...]
    days: tuple[str, str] | None = None

    @property
    def sequential(self) -> FetchResult:
        """The result as a sequential sync gives it."""
        return FetchResult(
            database=self.result.database,
            table=self.result.table,
            rows=self.result.total_rows,
            type=self.stream.name,
            duration_seconds=self.result.duration_seconds,
            date_range=self.days,
            fetched_at=self.result.fetched_at,
            has_failures=self.result.has_failures,
        )


def stream_named(name: str, among: Iterable[Stream] = STREAMS) -> Stream:
    """The stream of a name.

    Raises:
        ConfigurationError: there is none.
    """
    streams = {stream.name: stream for stream in among}
    if name not in streams:
        raise ConfigurationError(f"there is no stream {name!r}: it is one of {', '.join(streams)}")
    return streams[name]


def checked_config(stream: Stream, given: Mapping[str, Any]) -> dict[str, Any]:
    """Run config of a sync: the settings that are not None, as the types that they have there.

    Raises:
        ConfigurationError: a setting is out of range or no such thing, or two contradict each other.
    """
    fields = stream.config.model_fields
    unknown = sorted(set(given) - set(fields))
    if unknown:
        raise ConfigurationError(f"{stream.name} knows no {' or '.join(unknown)}")
    config = {}
    for name, value in given.items():
        if value is not None:
            kind = fields[name].annotation
            either = get_args(kind)
            kind = either[0] if NoneType in either else kind
            config[name] = (_KINDS.get(name) or _KINDS[kind])(name, value)
    chosen = stream.config(**config)
    chosen.query()
    if nothing := chosen.nothing_named():
        raise ConfigurationError(nothing)
    return config


def workers_for(stream: Stream, wished: int | None) -> int:
    """How many pages or chunks to fetch at a time: as many as the pool lets through usually, or as wished, up to what
    Mixpanel, or politeness, allows.

    Raises:
        ConfigurationError: fewer than one.
    """
    if wished is None:
        return POOL_LIMITS[stream.pool]
    wished, most = arguments.whole_number("max_workers", wished), POOL_CEILINGS[stream.pool]
    if wished < 1:
        raise ConfigurationError(f"{wished} workers cannot fetch anything: ask for 1 to {most}")
    if wished > most:
        warnings.warn(
            f"{wished} workers wished for; no more than {most} {stream.requests} are fetched at a time, so it is "
            f"{most}",
            FewerWorkersWarning,
            stacklevel=3,
        )
    return min(wished, most)


def sync(
    stream: Stream,
    config: Mapping[str, Any],
    workers: int,
    watcher: Watcher,
    *,
    days: tuple[str, str] | None = None,
    instance: dg.DagsterInstance | None = None,
    log_level: str = "CRITICAL",
) -> Synced:
    """Sync a stream while `watcher` looks on.

    Args:
        stream: What.
        config: Its `checked_config`.
        workers: Pages or chunks at a time.
        watcher: Who looks on.
        days: Of events: first and last day; None: only what failed before.
        instance: Where the run is recorded; None: the one of DAGSTER_HOME.
        log_level: From which level on Dagster's own lines appear on stderr.

    Raises:
        ConfigurationError: the days cannot be synced.
        MixpanelAssetsError: nothing was stored.
    """
    tags = {} if days is None else event_days(*days, config.get("chunk_days"))
    order = RunOrder(stream.key, config, workers, tags, log_level)
    report, seconds = _timed_run(order, instance, _Progress(watcher), watcher, stream.pool)
    stored, stored_at = _stored(report)
    return Synced(stream, _result(stream, stored, seconds, stored_at), _problems(report), days)


def _result(
    stream: Stream, stored: Metadata, seconds: float, stored_at: datetime.datetime
) -> ParallelFetchResult | ParallelProfileFetchResult:
    """What the metadata of a sync say."""
    rows = stored["fetched_rows"] - stored[f"duplicate_{stream.name}"]
    database, table = str(settings.database()), stored["dagster/table_name"]
    if "failed_date_ranges" not in stored:
        return ParallelProfileFetchResult(
            database=database,
            table=table,
            total_rows=rows,
            successful_pages=stored["successful_pages"],
            failed_pages=stored["failed_pages"],
            failed_page_indices=tuple(stored["failed_page_indices"] or ()),
            duration_seconds=seconds,
            fetched_at=stored_at,
        )
    return ParallelFetchResult(
        database=database,
        table=table,
        total_rows=rows - stored["rejected_rows"],
        successful_batches=stored["successful_batches"],
        failed_batches=stored["failed_batches"],
        failed_date_ranges=tuple((first, last) for first, last in stored["failed_date_ranges"]),
        duration_seconds=seconds,
        fetched_at=stored_at,
    )


def event_days(from_date: str, to_date: str, chunk_days: int | None) -> dict[str, str]:
    """The run's tags that choose these days, both inclusive.

    Raises:
        ConfigurationError: not two dates in order, in the future, before the first partition, or a bad `chunk_days`.
    """
    try:
        split_date_range(from_date, to_date, days_per_request(chunk_days, 1))
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    today, first = partitions.today(), settings.events_start_date().isoformat()
    if to_date > today:
        raise ConfigurationError(f"{to_date} is in the future: the project's present day is {today}")
    if from_date < first:
        raise ConfigurationError(f"{from_date} is before the first partition: set MP_EVENTS_START_DATE (now {first})")
    return {ASSET_PARTITION_RANGE_START_TAG: from_date, ASSET_PARTITION_RANGE_END_TAG: to_date}


class _Progress:
    """Turns the metadata of a run's ops into progress."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._total = 1
        self._expected = 0

    def __call__(self, said: Metadata) -> None:
        if "batches_ordered" in said:
            self._watcher.expect(said["batches_ordered"], anew=True)
        if "pages_ordered" in said:
            self._total, anew = said["total_pages"], said.get("page_index") == 0
            self._expected = said["pages_ordered"] + (1 if anew else self._expected)
            self._watcher.expect(self._expected, anew=anew)
        error = said.get("error")
        if "page_index" in said:
            self._total = max(self._total, said["page_index"] + 1)
            page = ProfileBatchProgress(said["page_index"], self._total, said["rows"], error is None, error)
            self._watcher.finished(page)
        if "batch_index" in said:
            names = ("from_date", "to_date", "batch_index", "total_batches", "rows")
            chunk = BatchProgress(**{name: said[name] for name in names}, success=error is None, error=error)
            self._watcher.finished(chunk)


def _timed_run(
    order: RunOrder,
    instance: dg.DagsterInstance | None,
    on_output: Callable[[Metadata], None],
    watcher: Watcher,
    pool: str,
) -> tuple[RunReport, float]:
    started = time.monotonic()
    # The DuckDB file and what is staged lie there, whichever instance records the run.
    prepare_home()
    with nullcontext(instance) if instance is not None else open_instance() as used:
        _make_room(used, pool, order.max_concurrent, watcher)
        report = run_asset(order, used, on_output, watcher.say)
    return report, round(time.monotonic() - started, 3)


def _make_room(instance: dg.DagsterInstance, pool: str, workers: int, watcher: Watcher) -> None:
    """Raise the instance's limit of a pool for a wish beyond the usual; one that a person has lowered stays."""
    usual = POOL_LIMITS[pool]
    if workers <= usual or not instance.event_log_storage.supports_global_concurrency_limits:
        return
    limits = {row.name: row.limit for row in instance.event_log_storage.get_pool_limits() if not row.from_default}
    limit = limits.get(pool, usual)
    if limit < usual:
        watcher.say(logging.WARNING, f"pool {pool} of this instance allows {limit} at a time, so it is {limit}")
    elif limit < workers:
        instance.event_log_storage.set_concurrency_slots(pool, workers)
        watcher.say(logging.INFO, f"pool {pool} of this instance now allows {workers} at a time, for all runs")


def _stored(report: RunReport) -> tuple[Metadata, datetime.datetime]:
    if report.stored is None or report.stored_at is None:
        if report.success:
            raise MixpanelError("nothing was stored: Mixpanel serves none of these days, see the warnings above")
        raise report.error or MixpanelAssetsError(f"run {report.run_id} stored nothing: see it in the Dagster UI")
    return report.stored, report.stored_at


def _problems(report: RunReport) -> tuple[str, ...]:
    """Why a run that stored something is not a success; empty when it is."""
    if report.success:
        return ()
    return tuple(report.failed_checks) or (str(report.error or f"run {report.run_id} failed"),)
