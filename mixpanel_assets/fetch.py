"""`fetch_profiles` and `fetch_events`: a sync as a function call, for scripts and notebooks.

Belongs here: turning arguments into a run's config, and what the run says into results. Does not belong here: the run
(run.py) and how results look (results.py). `mp` calls the same `sync_*` functions, with a watcher of its own.
"""

import logging
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import dagster as dg

from mixpanel_assets.assets.profiles import PROFILES_KEY, ProfilesConfig
from mixpanel_assets.errors import ConfigurationError, IncompleteSyncError, MixpanelAssetsError
from mixpanel_assets.instances import open_instance
from mixpanel_assets.pools import ENGAGE_POOL, POOL_LIMITS
from mixpanel_assets.results import FetchResult, ParallelProfileFetchResult, ProfileBatchProgress
from mixpanel_assets.run import Metadata, RunOrder, RunReport, run_asset

_LOG = logging.getLogger(__name__)
MAX_PROFILE_WORKERS = POOL_LIMITS[ENGAGE_POOL]

Outcome = TypeVar("Outcome")


class FewerWorkersWarning(UserWarning):
    """More workers were wished for than Mixpanel would answer."""


class Watcher(Protocol):
    """Who looks on while a sync runs."""

    def expect(self, units: int) -> None:
        """So many pages or chunks will be fetched; may be said again when a session had to start over."""

    def finished(self, update: Any) -> None:
        """One page or chunk is finished: a ProfileBatchProgress or BatchProgress."""

    def say(self, level: int, text: str) -> None:
        """A line for people; called from any thread."""


@dataclass(frozen=True)
class Synced(Generic[Outcome]):
    """A sync that stored something, and what is wrong with it in words; no problems: all is stored."""

    result: Outcome
    problems: tuple[str, ...]


def fetch_profiles(
    *,
    parallel: bool = False,
    max_workers: int | None = None,
    where: str | None = None,
    cohort_id: int | None = None,
    include_all_users: bool | None = None,
    output_properties: Sequence[str] | None = None,
    page_size: int | None = None,
    data_group_id: str | None = None,
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
        output_properties: Only these properties.
        page_size: Profiles per page wished for; Mixpanel decides.
        data_group_id: Group profiles of this group, instead of users.
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
    config = profiles_config(
        where=where,
        cohort_id=cohort_id,
        include_all_users=include_all_users,
        output_properties=output_properties,
        page_size=page_size,
        data_group_id=data_group_id,
        retry_failed_pages=retry_failed_pages or None,
    )
    workers = profile_workers(max_workers) if parallel else 1
    synced = sync_profiles(config, workers, _Callback(on_batch_complete), instance)
    if parallel and synced.result.has_failures:
        return synced.result
    result = synced.result if parallel else sequential_profiles(synced.result)
    if synced.problems:
        raise IncompleteSyncError("; ".join(synced.problems), result)
    return result


def profiles_config(**settings: Any) -> dict[str, Any]:
    """Run config of `mixpanel/profiles`, without what is None.

    Raises:
        ConfigurationError: a setting is out of range, or two contradict each other.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    if isinstance(given.get("output_properties"), str):
        raise ConfigurationError("output_properties must be a list of names, not one text")
    if "output_properties" in given:
        given["output_properties"] = list(given["output_properties"])
    ProfilesConfig(**given).query()
    return given


def profile_workers(wished: int | None) -> int:
    """Pages to fetch at a time: at most what Mixpanel answers at a time.

    Raises:
        ConfigurationError: fewer than one.
    """
    if wished is None:
        return MAX_PROFILE_WORKERS
    if wished < 1:
        raise ConfigurationError(f"{wished} workers cannot fetch anything: ask for 1 to {MAX_PROFILE_WORKERS}")
    if wished > MAX_PROFILE_WORKERS:
        warnings.warn(
            f"{wished} workers wished for: Mixpanel answers {MAX_PROFILE_WORKERS} queries at a time, so it is "
            f"{MAX_PROFILE_WORKERS}",
            FewerWorkersWarning,
            stacklevel=3,
        )
    return min(wished, MAX_PROFILE_WORKERS)


def sync_profiles(
    config: Mapping[str, Any],
    workers: int,
    watcher: Watcher,
    instance: dg.DagsterInstance | None = None,
    log_level: str = "CRITICAL",
) -> Synced[ParallelProfileFetchResult]:
    """Run `mixpanel/profiles` while `watcher` looks on.

    Raises:
        MixpanelAssetsError: nothing was stored.
    """
    order = RunOrder(PROFILES_KEY, config, workers, log_level=log_level)
    report, seconds = _timed_run(order, instance, _PagesTo(watcher), watcher)
    stored, stored_at = _stored(report)
    failed = tuple(stored["failed_page_indices"] or ())
    result = ParallelProfileFetchResult(
        table="mixpanel.profiles",
        total_rows=stored["fetched_rows"] - stored["duplicate_profiles"],
        successful_pages=stored["successful_pages"],
        failed_pages=stored["failed_pages"],
        failed_page_indices=failed,
        duration_seconds=seconds,
        fetched_at=stored_at,
    )
    return Synced(result, _problems(report))


def sequential_profiles(result: ParallelProfileFetchResult) -> FetchResult:
    """The result as a sequential sync gives it."""
    return FetchResult(result.table, result.total_rows, "profiles", result.duration_seconds, None, result.fetched_at)


class _PagesTo:
    """Turns the metadata of a profiles run's ops into progress."""

    def __init__(self, watcher: Watcher) -> None:
        self._watcher = watcher
        self._total = 1

    def __call__(self, said: Metadata) -> None:
        page = said.get("page_index")
        if "pages_ordered" in said:
            self._total = said["total_pages"]
            self._watcher.expect(said["pages_ordered"] + (page is not None))
        if page is not None:
            self._total = max(self._total, page + 1)
            error = said.get("error")
            self._watcher.finished(ProfileBatchProgress(page, self._total, said["rows"], error is None, error))


class _Callback:
    """A watcher for functions: tells a callback, and the log."""

    def __init__(self, callback: Callable[[Any], None] | None) -> None:
        self._callback = callback

    def expect(self, units: int) -> None:
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


def _timed_run(
    order: RunOrder, instance: dg.DagsterInstance | None, on_output: Callable[[Metadata], None], watcher: Watcher
) -> tuple[RunReport, float]:
    started = time.monotonic()
    with nullcontext(instance) if instance is not None else open_instance() as used:
        report = run_asset(order, used, on_output, watcher.say)
    return report, round(time.monotonic() - started, 3)


def _stored(report: RunReport) -> tuple[Metadata, Any]:
    if report.stored is None:
        raise report.error or MixpanelAssetsError(f"run {report.run_id} stored nothing: see it in the Dagster UI")
    return report.stored, report.stored_at


def _problems(report: RunReport) -> tuple[str, ...]:
    """Why a run that stored something is not a success; empty when it is."""
    if report.success:
        return ()
    return tuple(report.failed_checks) or (str(report.error or f"run {report.run_id} failed"),)
