"""A sync of one asset, from its settings to its result: what `mp` and the Python functions have in common.

Belongs here: turning settings into a run's config, and what the run says into progress and results. Does not belong
here: the run (run.py), who asks (fetch.py, cli/), how it looks (progress.py).
"""

import datetime
import logging
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import dagster as dg
from dagster._core.storage.tags import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG

from mixpanel_assets import arguments, partitions, settings
from mixpanel_assets.errors import ConfigurationError, MixpanelAssetsError, MixpanelError
from mixpanel_assets.pools import ENGAGE_POOL, EXPORT_POOL, POOL_CEILINGS, POOL_LIMITS
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
from mixpanel_assets.streams.days import split_date_range
from mixpanel_assets.streams.events.assets import EVENTS_KEY
from mixpanel_assets.streams.events.settings import EventsConfig
from mixpanel_assets.streams.profiles.assets import PROFILES
from mixpanel_assets.streams.profiles.settings import ProfilesConfig
from mixpanel_assets.streams.settings import SyncConfig
from mixpanel_assets.streams.stream import Stream

MAX_PROFILE_WORKERS = POOL_CEILINGS[ENGAGE_POOL]
MAX_EVENT_WORKERS = POOL_CEILINGS[EXPORT_POOL]
USUAL_EVENT_WORKERS = POOL_LIMITS[EXPORT_POOL]

# How each setting of a sync is read.
_KINDS: Mapping[str, Callable[[str, object], Any]] = {
    "where": arguments.text,
    "cohort_id": arguments.whole_number,
    "include_all_users": arguments.truth,
    "distinct_ids": arguments.names,
    "behaviors": arguments.json_text,
    "as_of_timestamp": arguments.whole_number,
    "output_properties": arguments.names,
    "page_size": arguments.whole_number,
    "data_group_id": arguments.digits,
    "max_removed_fraction": arguments.number,
    "max_missing_fraction": arguments.number,
    "on_quota": arguments.text,
    "retry_failed_pages": arguments.truth,
    "chunk_days": arguments.whole_number,
    "events": arguments.names,
    "times": arguments.text,
    "retry_failed_ranges": arguments.truth,
    "from_date": arguments.day,
    "cohort_ids": arguments.whole_numbers,
    "cohort_names": arguments.names,
    "hash_properties": arguments.names,
    "to_date": arguments.day,
}

Outcome = TypeVar("Outcome")


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
class Synced(Generic[Outcome]):
    """A sync that stored something, and what is wrong with it in words; no problems: all is stored."""

    result: Outcome
    problems: tuple[str, ...]


def profiles_config(**given: Any) -> dict[str, Any]:
    """`_checked` run config of `mixpanel/profiles`."""
    return _checked(ProfilesConfig, given)


def workers_for(units: str, wished: int | None, most: int) -> int:
    """How many pages or chunks to fetch at a time; `most` is what Mixpanel, or politeness, allows.

    Raises:
        ConfigurationError: fewer than one.
    """
    if wished is None:
        return most
    wished = arguments.whole_number("max_workers", wished)
    if wished < 1:
        raise ConfigurationError(f"{wished} workers cannot fetch anything: ask for 1 to {most}")
    if wished > most:
        warnings.warn(
            f"{wished} workers wished for; no more than {most} {units} are fetched at a time, so it is {most}",
            FewerWorkersWarning,
            stacklevel=3,
        )
    return min(wished, most)


def profile_workers(wished: int | None) -> int:
    """Pages at a time: at most the five queries that Mixpanel answers at a time."""
    return workers_for("pages", wished, MAX_PROFILE_WORKERS)


def sync_profiles(
    config: Mapping[str, Any],
    workers: int,
    watcher: Watcher,
    instance: dg.DagsterInstance | None = None,
    log_level: str = "CRITICAL",
) -> Synced[ParallelProfileFetchResult]:
    """`sync_pages` of `mixpanel/profiles`."""
    return sync_pages(PROFILES, config, workers, watcher, instance, log_level)


def sync_pages(
    stream: Stream,
    config: Mapping[str, Any],
    workers: int,
    watcher: Watcher,
    instance: dg.DagsterInstance | None = None,
    log_level: str = "CRITICAL",
) -> Synced[ParallelProfileFetchResult]:
    """Sync a stream in pages while `watcher` looks on; `instance` None: the one of DAGSTER_HOME.

    Raises:
        MixpanelAssetsError: nothing was stored.
    """
    order = RunOrder(stream.key, config, workers, log_level=log_level)
    report, seconds = _timed_run(order, instance, _PagesTo(watcher), watcher, stream.pool)
    stored, stored_at = _stored(report)
    result = ParallelProfileFetchResult(
        database=str(settings.duckdb_path()),
        table=f"mixpanel.{stream.name}",
        total_rows=stored["fetched_rows"] - stored[f"duplicate_{stream.name}"],
        successful_pages=stored["successful_pages"],
        failed_pages=stored["failed_pages"],
        failed_page_indices=tuple(stored["failed_page_indices"] or ()),
        duration_seconds=seconds,
        fetched_at=stored_at,
    )
    return Synced(result, _problems(report))


def sync_list(
    name: str,
    given: Mapping[str, Any],
    watcher: Watcher,
    instance: dg.DagsterInstance | None = None,
    log_level: str = "CRITICAL",
    workers: int = 1,
) -> Synced[FetchResult]:
    """Sync a stream that is neither profiles nor events, by its name.

    Raises:
        ConfigurationError: there is no such stream, or a setting is none of it or out of range.
        MixpanelAssetsError: nothing was stored.
    """
    stream = _listed(name)
    unknown = set(given) - set(stream.config.model_fields)
    if unknown:
        raise ConfigurationError(f"{name} knows no {' or '.join(sorted(unknown))}")
    synced = sync_pages(stream, _checked(stream.config, given), workers, watcher, instance, log_level)
    return Synced(_sequential(synced.result, name, None), synced.problems)


def _listed(name: str) -> Stream:
    streams = {stream.name: stream for stream in STREAMS if stream.key not in (PROFILES.key, EVENTS_KEY)}
    if name not in streams:
        raise ConfigurationError(f"there is no stream {name!r}: it is one of {', '.join(streams)}")
    return streams[name]


def events_config(**given: Any) -> dict[str, Any]:
    """`_checked` run config of `mixpanel/events`."""
    return _checked(EventsConfig, given)


def event_days(from_date: str, to_date: str, chunk_days: int) -> dict[str, str]:
    """The run's tags that choose these days, both inclusive.

    Raises:
        ConfigurationError: not two dates in order, in the future, before the first partition, or a bad `chunk_days`.
    """
    try:
        split_date_range(from_date, to_date, chunk_days)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    today, first = partitions.today(), settings.events_start_date().isoformat()
    if to_date > today:
        raise ConfigurationError(f"{to_date} is in the future: the project's present day is {today}")
    if from_date < first:
        raise ConfigurationError(f"{from_date} is before the first partition: set MP_EVENTS_START_DATE (now {first})")
    return {ASSET_PARTITION_RANGE_START_TAG: from_date, ASSET_PARTITION_RANGE_END_TAG: to_date}


def event_workers(wished: int | None) -> int:
    """Chunks at a time: ten, or as wished up to twenty of the hundred exports that Mixpanel runs at a time."""
    return workers_for("exports", USUAL_EVENT_WORKERS if wished is None else wished, MAX_EVENT_WORKERS)


def sync_events(
    config: Mapping[str, Any],
    days: Mapping[str, str],
    workers: int,
    watcher: Watcher,
    instance: dg.DagsterInstance | None = None,
    log_level: str = "CRITICAL",
) -> Synced[ParallelFetchResult]:
    """Run `mixpanel/events` for the days that the tags choose (none: only what failed before).

    Raises:
        MixpanelAssetsError: nothing was stored.
    """
    order = RunOrder(EVENTS_KEY, config, workers, days, log_level)
    report, seconds = _timed_run(order, instance, _ChunksTo(watcher), watcher, EXPORT_POOL)
    stored, stored_at = _stored(report)
    result = ParallelFetchResult(
        database=str(settings.duckdb_path()),
        table="mixpanel.events",
        total_rows=stored["fetched_rows"] - stored["rejected_rows"] - stored["duplicate_events"],
        successful_batches=stored["successful_batches"],
        failed_batches=stored["failed_batches"],
        failed_date_ranges=tuple((first, last) for first, last in stored["failed_date_ranges"]),
        duration_seconds=seconds,
        fetched_at=stored_at,
    )
    return Synced(result, _problems(report))


def sequential_events(result: ParallelFetchResult, from_date: str, to_date: str) -> FetchResult:
    """The result as a sequential sync gives it."""
    return _sequential(result, "events", (from_date, to_date))


def sequential_profiles(result: ParallelProfileFetchResult) -> FetchResult:
    """The result as a sequential sync gives it."""
    return _sequential(result, "profiles", None)


def _sequential(
    result: ParallelFetchResult | ParallelProfileFetchResult, of: str, days: tuple[str, str] | None
) -> FetchResult:
    return FetchResult(
        database=result.database,
        table=result.table,
        rows=result.total_rows,
        type=of,
        duration_seconds=result.duration_seconds,
        date_range=days,
        fetched_at=result.fetched_at,
        has_failures=result.has_failures,
    )


class _PagesTo:
    """Turns the metadata of a profiles run's ops into progress."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._total = 1
        self._expected = 0

    def __call__(self, said: Metadata) -> None:
        page = said.get("page_index")
        if "pages_ordered" in said:
            self._total = said["total_pages"]
            anew = page == 0
            self._expected = said["pages_ordered"] + (1 if anew else self._expected)
            self._watcher.expect(self._expected, anew=anew)
        if page is not None:
            self._total = max(self._total, page + 1)
            error = said.get("error")
            self._watcher.finished(ProfileBatchProgress(page, self._total, said["rows"], error is None, error))


class _ChunksTo:
    """Turns the metadata of an events run's ops into progress."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher

    def __call__(self, said: Metadata) -> None:
        if "batches_ordered" in said:
            self._watcher.expect(said["batches_ordered"], anew=True)
        if "batch_index" in said:
            error = said.get("error")
            self._watcher.finished(
                BatchProgress(
                    from_date=said["from_date"],
                    to_date=said["to_date"],
                    batch_index=said["batch_index"],
                    total_batches=said["total_batches"],
                    rows=said["rows"],
                    success=error is None,
                    error=error,
                )
            )


def _checked(settings_of: type[SyncConfig], given: Mapping[str, Any]) -> dict[str, Any]:
    """Run config of a sync: the settings that are not None, as the types that they have there.

    Raises:
        ConfigurationError: a setting is out of range or no such thing, or two contradict each other.
    """
    config = {name: _KINDS[name](name, value) for name, value in given.items() if value is not None}
    settings_of(**config).query()
    return config


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
