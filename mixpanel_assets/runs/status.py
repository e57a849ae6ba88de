"""What is known without asking Mixpanel: the last syncs, what failed in them, what is left of the hour, what a sync
would cost.

Belongs here: reading the instance and the ledger for `mp status` and `mp plan`. Does not belong here: printing (cli/),
fetching (syncs.py).
"""

import datetime
from collections.abc import Sequence
from typing import Any

import dagster as dg

from mixpanel_assets import partitions, settings
from mixpanel_assets.client.quota import Account
from mixpanel_assets.errors import ConfigurationError
from mixpanel_assets.resources import kept_limits, warehouse_at
from mixpanel_assets.runs.run import step_error
from mixpanel_assets.runs.syncs import stream_named
from mixpanel_assets.storage.warehouse import Say, Warehouse
from mixpanel_assets.streams.all import STREAMS
from mixpanel_assets.streams.budgets import Budget, budget
from mixpanel_assets.streams.days import MAX_CHUNK_DAYS, days_between, days_per_request, ranges_of, split_date_range
from mixpanel_assets.streams.events.assets import EVENTS, EVENTS_KEY
from mixpanel_assets.streams.events.owed import owed_days
from mixpanel_assets.streams.owed import NoRecordError
from mixpanel_assets.streams.stream import Stream

# Runs that are looked through for the last one of an asset.
_MOST_RUNS = 100


def status(instance: dg.DagsterInstance, say: Say) -> dict[str, Any]:
    """All streams, both quotas, and where things are; JSON-ready. A stream that was never synced is None.

    `say` is told, in a line, when a lock of the DuckDB file is waited for.
    """
    warehouse = warehouse_at("", say)
    runs = instance.get_runs(limit=_MOST_RUNS)
    return {
        **{stream.name: _stream(instance, warehouse, stream, runs) for stream in STREAMS},
        "quota": _quota(instance),
        "duckdb": str(settings.database()),
        "dagster_home": str(settings.home()),
    }


def owes(instance: dg.DagsterInstance, name: str, say: Say) -> bool:
    """Whether a stream lacks pages, or days, that failed and have not come since.

    Raises:
        NoRecordError: nothing tells.
    """
    stream = stream_named(name)
    if stream.missing_pages is None:
        return _owes_days(instance, say)
    return bool(stream.missing_pages(instance, warehouse_at("", say)))


def _owes_days(instance: dg.DagsterInstance, say: Say) -> bool:
    project = settings.project()
    return bool(owed_days(instance, EVENTS_KEY, warehouse_at("", say), project.source(project.export_url)))


def plan_pages(instance: dg.DagsterInstance, stream: Stream) -> dict[str, Any]:
    """What a sync of a stream in pages would cost, by the number of pages of the last one; before the first, that of
    page 0.

    Raises:
        ConfigurationError: credentials are missing.
    """
    queries, _ = _accounts(instance)
    last, parts = _last_materialization(instance, stream.key), stream.config.parts()
    pages = int(last["metadata"]["total_pages"]) if last else 1
    # Page 0 of what the settings name is no request.
    counted = stream.counted(pages if parts is None else parts + 1, queries) if stream.counted else pages
    needed, requests = budget(queries, counted), pages if parts is None else parts
    if last is None:
        return _plan(stream.name, needed, parts, None, None)
    return _plan(stream.name, needed, requests, last["metadata"]["duration_seconds"], last["at"])


def plan_all(instance: dg.DagsterInstance, from_date: str, to_date: str, chunk_days: int | None) -> dict[str, Any]:
    """What a sync of each stream would cost, of events for these days, and all of them together; `not_known` are those
    of which no sync has told yet how many pages they have, so that they cost more.

    Raises:
        ConfigurationError: not two dates in order, a bad `chunk_days`, or credentials are missing.
    """
    queries, exports = _accounts(instance)
    plans = {
        stream.name: plan_events(instance, from_date, to_date, chunk_days)
        if stream is EVENTS
        else plan_pages(instance, stream)
        for stream in STREAMS
    }
    needed = budget(queries, sum(plan["counted_requests"] for name, plan in plans.items() if name != EVENTS.name))
    of_events = budget(exports, plans[EVENTS.name]["counted_requests"])
    return {
        **plans,
        "queries": _sum(needed),
        "exports": _sum(of_events),
        "fits": needed.fits and of_events.fits,
        "not_known": [each.name for each in STREAMS if plans[each.name]["requests"] is None and _counts(each, queries)],
    }


def _counts(stream: Stream, queries: Account) -> bool:
    """Whether a page after the first counts against the hour."""
    return stream.counted is not None and stream.counted(2, queries) > stream.counted(1, queries)


def _sum(needed: Budget) -> dict[str, Any]:
    names = ("counted_requests", "left", "hourly_limit", "wait_seconds")
    return {name: value for name, value in needed.to_dict().items() if name in names}


def plan_events(instance: dg.DagsterInstance, from_date: str, to_date: str, chunk_days: int | None) -> dict[str, Any]:
    """What a sync of these days (both inclusive) would cost.

    Raises:
        ConfigurationError: not two dates in order, a bad `chunk_days`, or credentials are missing.
    """
    try:
        days = days_between(from_date, to_date)
        chunks = split_date_range(from_date, to_date, days_per_request(chunk_days, len(days)))
    except ValueError as error:
        raise ConfigurationError(str(error)) from None
    if to_date > partitions.today():
        raise ConfigurationError(f"{to_date} is in the future: the project's present day is {partitions.today()}")
    _, exports = _accounts(instance)
    needed = budget(exports, len(chunks))
    planned = _plan("events", needed, len(chunks), None, None)
    if not needed.fits:
        planned["chunk_days_that_fit"] = _chunk_days_that_fit(len(days), exports)
    return planned


def _chunk_days_that_fit(days: int, exports: Account) -> int | None:
    """The fewest days per request with which nothing has to wait; None where no number of them does."""
    left = exports.quota().left
    chunk_days = -(-days // left) if left else MAX_CHUNK_DAYS + 1
    return chunk_days if chunk_days <= MAX_CHUNK_DAYS else None


def _plan(what: str, needed: Budget, requests: int | None, last_seconds: Any, last_at: str | None) -> dict[str, Any]:
    return {
        "asset": what,
        **needed.to_dict(),
        "requests": requests,
        "fits": needed.fits,
        "seconds_last_time": last_seconds,
        "last_sync": last_at,
    }


def _stream(
    instance: dg.DagsterInstance, warehouse: Warehouse, stream: Stream, runs: Sequence[dg.DagsterRun]
) -> dict[str, Any] | None:
    run = _last_run(runs, stream)
    if stream.missing_pages is None:
        return _events(instance, warehouse, run)
    last = _last_materialization(instance, stream.key)
    pages: Sequence[int] | None
    try:
        pages = stream.missing_pages(instance, warehouse)
    except NoRecordError:
        pages = None
    if last is None and run is None and pages is None:
        return None
    said = last["metadata"] if last else {}
    return {
        "last_sync": last["at"] if last else None,
        "rows": said.get("dagster/row_count"),
        "failed_page_indices": pages,
        **_run_words(instance, run),
    }


def _events(instance: dg.DagsterInstance, warehouse: Warehouse, run: dg.DagsterRun | None) -> dict[str, Any] | None:
    last = _last_materialization(instance, EVENTS_KEY)
    try:
        failed = ranges_of(owed_days(instance, EVENTS_KEY, warehouse))
    except NoRecordError:
        failed = None
    if last is None and run is None and failed is None:
        return None
    days = sorted(instance.get_materialized_partitions(EVENTS_KEY))
    return {
        "last_sync": last["at"] if last else None,
        "days": len(days),
        "date_ranges": [list(days) for days in ranges_of(days)],
        "failed_date_ranges": None if failed is None else [list(days) for days in failed],
        **_run_words(instance, run),
    }


def _last_materialization(instance: dg.DagsterInstance, asset: dg.AssetKey) -> dict[str, Any] | None:
    entry = instance.get_latest_materialization_event(asset)
    if entry is None or entry.asset_materialization is None:
        return None
    at = datetime.datetime.fromtimestamp(entry.timestamp, datetime.timezone.utc)
    metadata = {name: value.value for name, value in entry.asset_materialization.metadata.items()}
    return {"at": at.isoformat(timespec="seconds"), "metadata": metadata}


def _last_run(runs: Sequence[dg.DagsterRun], stream: Stream) -> dg.DagsterRun | None:
    """The last of the runs, newest first, that was to sync the stream, alone or with others."""
    for run in runs:
        chosen = run.asset_selection
        if stream.key in chosen if chosen else run.job_name in stream.jobs:
            return run
    return None


def _run_words(instance: dg.DagsterInstance, run: dg.DagsterRun | None) -> dict[str, Any]:
    if run is None:
        return {"last_run": None, "last_run_status": None, "last_run_error": None}
    return {"last_run": run.run_id, "last_run_status": run.status.value, "last_run_error": _why_failed(instance, run)}


def _why_failed(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str | None:
    if run.status != dg.DagsterRunStatus.FAILURE:
        return None
    for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE):
        return str(step_error(entry.get_dagster_event()))
    return f"see run {run.run_id} in the Dagster UI"


def _quota(instance: dg.DagsterInstance) -> dict[str, Any] | None:
    """What is left of the hour; None without credentials, since the quota is a project's."""
    try:
        queries, exports = _accounts(instance)
    except ConfigurationError:
        return None
    return {"queries": _left(queries), "exports": _left(exports)}


def _left(account: Account) -> dict[str, Any]:
    quota = account.quota()
    return {
        "left": quota.left,
        "hourly_limit": quota.limit,
        "limit_learned": quota.learned,
        "next_in_seconds": round(quota.wait_for(1), 1),
    }


def _accounts(instance: dg.DagsterInstance) -> tuple[Account, Account]:
    project = settings.project()
    ledger = kept_limits(instance).ledger()
    return (
        ledger.account(project.query_url, project.project_id, "query", settings.hourly_queries()),
        ledger.account(project.export_url, project.project_id, "export", settings.hourly_exports()),
    )
