"""`fetch_profiles` and `fetch_events`: a sync as a function call, for scripts and notebooks.

Belongs here: the arguments, their words, and what is raised or returned. Does not belong here: the sync (syncs.py) and
how results look (results.py). They may be called from any thread, and return when the run has ended.
"""

import datetime
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import dagster as dg

from mixpanel_assets import arguments
from mixpanel_assets.errors import ConfigurationError, IncompleteSyncError
from mixpanel_assets.results import (
    BatchProgress,
    FetchResult,
    ParallelFetchResult,
    ParallelProfileFetchResult,
    ProfileBatchProgress,
    SyncResult,
)
from mixpanel_assets.runs.syncs import checked_config, stream_named, sync, workers_for
from mixpanel_assets.streams.all import STREAMS
from mixpanel_assets.streams.events.assets import EVENTS
from mixpanel_assets.streams.profiles.assets import PROFILES
from mixpanel_assets.streams.stream import Stream

Fetched = TypeVar("Fetched", bound=SyncResult)
_LOG = logging.getLogger(__name__)


def fetch_profiles(
    *,
    parallel: bool = False,
    max_workers: int | None = None,
    where: str | None = None,
    cohort_id: int | None = None,
    include_all_users: bool | None = None,
    distinct_ids: Sequence[str] | None = None,
    behaviors: str | Sequence[Mapping[str, Any]] | None = None,
    as_of_timestamp: int | None = None,
    output_properties: Sequence[str] | None = None,
    page_size: int | None = None,
    incremental: bool = False,
    overlap_hours: float | None = None,
    history: bool = False,
    data_group_id: str | None = None,
    max_removed_fraction: float | None = None,
    max_missing_fraction: float | None = None,
    on_quota: str = "stop",
    retry_failed_pages: bool = False,
    on_batch_complete: Callable[[ProfileBatchProgress], None] | None = None,
    instance: dg.DagsterInstance | None = None,
) -> FetchResult | ParallelProfileFetchResult:
    """Copy the project's profiles to `mixpanel.profiles`, as a Dagster run in this process.

    Args:
        parallel: Fetch several pages at a time; the table is the same either way.
        max_workers: Pages at a time, 1 to 5 (default 5); more are capped with a warning.
        where: Filter expression, such as `properties["plan"] == "pro"`.
        cohort_id: Only members of this cohort.
        include_all_users: With cohort_id: also ids that have no profile.
        distinct_ids: Only profiles of these ids.
        behaviors: What `where` may count, a list or its JSON: `[{"window": "30d", "name": "x", "event_selectors":
            [{"event": "Signup"}]}]`, for a `where` such as `(behaviors["x"] > 0)`.
        as_of_timestamp: With behaviors: the end of their windows, in seconds since 1970.
        output_properties: Only these properties.
        page_size: Profiles per page wished for; Mixpanel decides.
        incremental: Only profiles that Mixpanel updated since the last sync, removing none; all of them once a day.
        overlap_hours: With incremental: how long before the last sync they are asked for again (default 2).
        history: From now on keep what each profile was, in `mixpanel.profile_history`; later syncs go on with it.
        data_group_id: Was for group profiles, which are `fetch_list("groups", ...)` now.
        max_removed_fraction: Largest share of the stored profiles that may vanish (default 0.5).
        max_missing_fraction: Share of the reported profiles that may be missing from pages that came (default 0.001).
        on_quota: When the hourly quota is too small: "stop", or "wait" until there is room.
        retry_failed_pages: Only the pages that failed last time, under the same session.
        on_batch_complete: Called once per finished page, page 0 included, in the calling thread. No further page starts
            while it runs, so keep it short. What it raises is logged and harms nothing.
        instance: Dagster instance that records the run; default: the one of DAGSTER_HOME, else of ./dagster_home.

    Returns:
        Of a parallel sync a ParallelProfileFetchResult, which lists the pages that failed; else a FetchResult.

    Raises:
        IncompleteSyncError: something is missing that the result cannot tell; its `result` says what is stored.
        ConfigurationError: an argument or a setting is wrong; nothing was sent.
        MixpanelError: nothing came; the table is as it was.
        WarehouseError: the DuckDB file cannot be used; it is as it was.
        Cancelled: Ctrl-C, or cancelled in the UI.
    """
    given = {
        "where": where,
        "cohort_id": cohort_id,
        "include_all_users": include_all_users,
        "distinct_ids": distinct_ids,
        "behaviors": behaviors,
        "as_of_timestamp": as_of_timestamp,
        "output_properties": output_properties,
        "page_size": page_size,
        "incremental": incremental or None,
        "overlap_hours": overlap_hours,
        "history": history or None,
        "data_group_id": data_group_id,
        "max_removed_fraction": max_removed_fraction,
        "max_missing_fraction": max_missing_fraction,
        "on_quota": on_quota,
        "retry_failed_pages": retry_failed_pages,
    }
    return _fetched(
        ParallelProfileFetchResult, PROFILES, given, None, parallel, max_workers, on_batch_complete, instance
    )


def fetch_events(
    from_date: str | datetime.date,
    to_date: str | datetime.date,
    *,
    parallel: bool = False,
    max_workers: int | None = None,
    chunk_days: int | None = None,
    events: Sequence[str] | None = None,
    where: str | None = None,
    limit: int | None = None,
    times: str | None = None,
    max_removed_fraction: float | None = None,
    on_quota: str = "stop",
    retry_failed_ranges: bool = False,
    on_batch_complete: Callable[[BatchProgress], None] | None = None,
    instance: dg.DagsterInstance | None = None,
) -> FetchResult | ParallelFetchResult:
    """Copy the events of a range of days to `mixpanel.events`, as a Dagster run in this process.

    Args:
        from_date: First day, as text (2026-01-31) or date.
        to_date: Last day, included.
        parallel: Fetch several chunks at a time; the table is the same either way.
        max_workers: Chunks at a time, 1 to 20 (default 10); more are capped with a warning.
        chunk_days: Days per request, 1 to 100 (default: 7, or as many as make ten requests of the range).
        events: Only events of these names.
        where: Filter expression, such as `properties["plan"] == "pro"`.
        limit: A sample: at most so many events, 1 to 100,000, asked for with one request. They go into the table
            `mixpanel.events_sample` in the place of those there; `mixpanel.events` stays as it is.
        times: What `time` of the events is: "utc", or "project" for the wall clock of MP_TIMEZONE, as in projects made
            before 2023 (default: MP_EVENT_TIMES, or "utc").
        max_removed_fraction: Largest share of the stored rows of a day that is over that an answer may lack (default
            0.5); beyond it the day stays as it is, and is listed as failed.
        on_quota: When the hourly quota is too small: "stop", or "wait" until there is room.
        retry_failed_ranges: Of these days only those that failed earlier.
        on_batch_complete: Called once per finished chunk, in the calling thread. No further chunk starts while it runs,
            so keep it short. What it raises is logged and harms nothing.
        instance: Dagster instance that records the run; default: the one of DAGSTER_HOME, else of ./dagster_home.

    Returns:
        Of a parallel sync a ParallelFetchResult, which lists the days that failed; else a FetchResult.

    Raises:
        IncompleteSyncError: something is missing that the result cannot tell; its `result` says what is stored.
        ConfigurationError: an argument or a setting is wrong; nothing was sent.
        MixpanelError: nothing came; the table is as it was.
        WarehouseError: the DuckDB file cannot be used; it is as it was.
        Cancelled: Ctrl-C, or cancelled in the UI.
    """
    given = {
        "chunk_days": chunk_days,
        "events": events,
        "where": where,
        "limit": limit,
        "times": times,
        "max_removed_fraction": max_removed_fraction,
        "on_quota": on_quota,
        "retry_failed_ranges": retry_failed_ranges,
    }
    first, last = arguments.day("from_date", from_date), arguments.day("to_date", to_date)
    return _fetched(
        ParallelFetchResult, EVENTS, given, (first, last), parallel, max_workers, on_batch_complete, instance
    )


def fetch_list(name: str, *, instance: dg.DagsterInstance | None = None, **chosen: Any) -> FetchResult:
    """Copy what is neither profiles nor events, such as `cohorts`, to its table, as a Dagster run in this process.

    Args:
        name: Of the asset and its table.
        instance: Dagster instance that records the run; default: the one of DAGSTER_HOME, else of ./dagster_home.
        chosen: The asset's settings, such as `on_quota="wait"`; README has those of each.

    Returns:
        A FetchResult.

    Raises:
        IncompleteSyncError: something is missing; its `result` says what is stored.
        ConfigurationError: an argument or a setting is wrong; nothing was sent.
        MixpanelError: nothing came; the table is as it was.
        WarehouseError: the DuckDB file cannot be used; it is as it was.
        Cancelled: Ctrl-C, or cancelled in the UI.
    """
    stream = stream_named(arguments.text("name", name), [each for each in STREAMS if each not in (PROFILES, EVENTS)])
    return _fetched(FetchResult, stream, chosen, None, False, None, None, instance)  # noqa: FBT003


def _fetched(
    result_type: type[Fetched],
    stream: Stream,
    given: Mapping[str, Any],
    days: tuple[str, str] | None,
    parallel: object,
    max_workers: int | None,
    callback: Callable[[Any], None] | None,
    instance: dg.DagsterInstance | None,
) -> FetchResult | Fetched:
    """Sync a stream, and say it as its function does."""
    config = checked_config(stream, given)
    at_once = _checked(parallel, callback, instance)
    workers = workers_for(stream, max_workers) if at_once else 1
    synced = sync(stream, config, workers, _Callback(callback), days=days, instance=instance)
    result = synced.result if at_once else synced.sequential
    assert isinstance(result, (FetchResult, result_type))
    if at_once and synced.result.has_failures:
        return result
    if synced.problems:
        raise IncompleteSyncError("; ".join(synced.problems), result)
    return result


def _checked(parallel: object, callback: object, instance: object) -> bool:
    """Refuse what would only be seen amid the run. Returns `parallel`."""
    if callback is not None and not callable(callback):
        raise ConfigurationError(f"on_batch_complete must be a function, not {type(callback).__name__}")
    if instance is not None and not isinstance(instance, dg.DagsterInstance):
        raise ConfigurationError(f"instance must be a DagsterInstance, not {type(instance).__name__}")
    return arguments.truth("parallel", parallel)


class _Callback:
    """A watcher for functions: tells a callback, and the log."""

    def __init__(self, callback: Callable[[Any], None] | None) -> None:
        self._callback = callback

    def expect(self, units: int, *, anew: bool) -> None:
        pass

    def finished(self, update: Any) -> None:
        if self._callback is None:
            return
        try:
            self._callback(update)
        except Exception:  # noqa: BLE001 - a callback must not cost the sync
            _LOG.exception("on_batch_complete raised an error; the sync goes on")

    def say(self, level: int, text: str) -> None:
        _LOG.log(level, "%s", text)
