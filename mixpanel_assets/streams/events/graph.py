"""The asset of events: days -> chunks in parallel -> one transaction -> what each day got.

No rules here: those are chunking.py's. What every stream's ops do is streams/graph.py's. Dagster calls an asset stored,
or not stored, as a whole; here some days may come and others not. So the rows are written by an op amid the graph, and
the last op says which days are materialized.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.events import AssetMaterializationPlannedData

from mixpanel_assets import partitions, settings
from mixpanel_assets.client.served_days import Edge
from mixpanel_assets.errors import ConfigurationError, IncompleteSyncError
from mixpanel_assets.leftovers import delete_leftovers, ended_runs
from mixpanel_assets.pools import EXPORT_POOL
from mixpanel_assets.resources import WarehouseResource
from mixpanel_assets.storage.warehouse import SCHEMA, Warehouse
from mixpanel_assets.streams.budgets import budget
from mixpanel_assets.streams.days import days_between
from mixpanel_assets.streams.events import chunking, reports
from mixpanel_assets.streams.events.chunking import Chunk, ChunkResult, EventsPlan, Range
from mixpanel_assets.streams.events.load import StagedEvents
from mixpanel_assets.streams.events.owed import owed_days
from mixpanel_assets.streams.events.query import EventsQuery
from mixpanel_assets.streams.events.settings import EventsConfig
from mixpanel_assets.streams.events.stored import COLUMNS, StoredEvents, loaded_at
from mixpanel_assets.streams.events.stored import stored as stored_events
from mixpanel_assets.streams.failures import OneLineFailure, one_line_errors
from mixpanel_assets.streams.graph import Names, Order, Planned, Step, Steps, Sync, SyncOps, stream_asset
from mixpanel_assets.streams.outcome import outcomes_of
from mixpanel_assets.streams.reports import timeline

EVENTS_KEY = dg.AssetKey([SCHEMA, "events"])

_Context = dg.OpExecutionContext | dg.AssetExecutionContext


class _EventsSteps(Steps):
    """What the ops of events do."""

    stream, pool = "events", EXPORT_POOL
    config = EventsConfig
    plans_online = False
    reports = True
    names = Names(
        plan=Step("plan", "Split the days into chunks, and order one fetch per chunk."),
        fetch=Step("fetch_chunk", "Fetch one chunk into staged files."),
        collect=Step("collect_events", "Judge what came, and hand it to the IO manager."),
        unit="chunk",
    )

    def plan(self, sync: Sync, config: EventsConfig, warehouse: Warehouse) -> Planned:
        client, context = sync.client(config.on_quota), sync.context
        query = replace(config.query(), source=client.events_source)
        days = _owed_days(context, query, warehouse) if config.retry_failed_ranges else _days(context, query)
        chunks = _chunks(days, config.chunk_days)
        warehouse.check_ready()
        plan = EventsPlan(
            context.run_id,
            tuple(chunks),
            datetime.now(timezone.utc),
            partitions.today(),
            config.max_removed_fraction,
            config.zone(),
        )
        taken = _take_over(context, plan, sync.staging, warehouse)
        delete_leftovers(context.instance, sync.staging)
        for from_date, to_date in taken:
            context.log.info(f"{from_date} to {to_date}: fetched by an earlier run that ended before it was stored")
        orders = [_order(plan, index, config.on_quota) for index in range(len(chunks))]
        said = {"total_batches": len(chunks), "batches_ordered": len(chunks)}
        return Planned(plan, orders, said, budget(client.exports, len(chunks) - len(taken)))

    def fetch(self, sync: Sync, order: Order) -> ChunkResult:
        return chunking.fetch_chunk(sync.client(order.on_quota), sync.staging, order.what, sync.context.log)

    def settle(
        self, context: dg.OpExecutionContext, staging: Path, plan: EventsPlan, fetched: Sequence[ChunkResult]
    ) -> Sequence[ChunkResult]:
        settled = chunking.settle(staging, plan, fetched)
        _say_unserved(context, settled)
        return settled

    def note_failed(self, context: dg.OpExecutionContext, settled: Sequence[ChunkResult]) -> None:
        _note_failed(context, settled)

    def stage(
        self, context: dg.OpExecutionContext, staging: Path, plan: EventsPlan, settled: Sequence[ChunkResult]
    ) -> tuple[StagedEvents, Mapping[str, Any]]:
        parts = [part for result in settled for part in result.ranges]
        staged = StagedEvents(
            staging,
            tuple(part for part in parts if part.came),
            tuple(part for part in parts if part.failed),
            tuple(part for part in parts if part.unserved),
            plan.today,
            plan.max_removed_fraction,
            plan.zone,
        )
        return staged, {}


_OPS = SyncOps(_EventsSteps())


_STORED = {"stored": dg.In(dg.Nothing)}


@dg.op(ins=_STORED, out=dg.Out(dg.Nothing, is_required=False))
def report(
    context: dg.AssetExecutionContext, planned: EventsPlan, settled: list[ChunkResult], warehouse: WarehouseResource
) -> Iterator[dg.Output[None]]:
    """Say which days are stored: as Dagster does when all that were chosen came, else one by one."""
    stored = _stored(context, warehouse)
    settled = _without_refused(settled, stored)
    days = chunking.stored_days(settled)
    if chunking.failed_ranges(settled) or list(days) != _chosen_days(context):
        _report_each(context, planned, settled, stored)
        return
    for day, query in days.items():
        context.add_asset_metadata(reports.day_metadata(stored.days[day], query), EVENTS_KEY, partition_key=day)
    drawn = timeline(outcomes_of(settled), "chunks", planned.started_at)
    context.add_asset_metadata(drawn, EVENTS_KEY, partition_key=max(days))
    yield dg.Output(None, metadata=reports.sync_metadata(planned, settled, stored, days))


@dg.op(ins=_STORED, out=dg.Out(dg.Nothing))
def report_each(
    context: dg.OpExecutionContext, planned: EventsPlan, settled: list[ChunkResult], warehouse: WarehouseResource
) -> None:
    """Say which days are stored, in a run that is no asset's."""
    stored = _stored(context, warehouse)
    _report_each(context, planned, _without_refused(settled, stored), stored)


def _stored(context: _Context, warehouse: WarehouseResource) -> StoredEvents:
    with one_line_errors(), warehouse.open(context.log).reading() as connection:
        return stored_events(connection)


def _without_refused(settled: list[ChunkResult], stored: StoredEvents) -> list[ChunkResult]:
    return chunking.without_refused(settled, {(each.day, each.query): each.reason for each in stored.refused})


def _order(plan: EventsPlan, index: int, on_quota: str) -> Order:
    order, chunk = plan.order(index), plan.chunks[index]
    said = {
        "batch_index": index,
        "total_batches": order.total,
        "from_date": chunk.from_date,
        "to_date": chunk.to_date,
    }
    return Order(f"c{index:05d}", f"{chunk.from_date} to {chunk.to_date}", said, order, on_quota)


def _days(context: dg.OpExecutionContext, query: EventsQuery) -> dict[str, EventsQuery]:
    """The days that are chosen, each with what is asked of it.

    Raises:
        ConfigurationError: no days are chosen, they are in the future, or a setting is wrong.
    """
    settings.events_start_date()
    today = partitions.today()
    chosen = _chosen_days(context)
    if not chosen:
        raise ConfigurationError("no days are chosen: materialize partitions, e.g. --partition 2026-01-31")
    if chosen[-1] > today:
        raise ConfigurationError(f"{chosen[-1]} is in the future: the project's present day is {today}")
    return dict.fromkeys(chosen, query)


def _owed_days(context: dg.OpExecutionContext, query: EventsQuery, warehouse: Warehouse) -> dict[str, EventsQuery]:
    """The days that failed, of those chosen or, with none chosen, all: each as it was asked for, but with what may be
    kept now as well.

    Raises:
        ConfigurationError: there are none, none is on record, or a setting is wrong.
    """
    settings.events_start_date()
    chosen = _chosen_days(context)
    found = owed_days(context.instance, EVENTS_KEY, warehouse, query.source)
    asked = {
        day: replace(failed, kept=failed.kept.and_also(query.kept), source=query.source)
        for day, failed in found.items()
        if (not chosen or day in chosen) and query.covers(failed)
    }
    if not asked:
        raise ConfigurationError("nothing to fetch again: no day of mixpanel/events has failed since it last came")
    for each in dict.fromkeys(asked.values()):
        each.check()
    return asked


def _chosen_days(context: _Context) -> list[str]:
    """The partitions of this run, as ISO dates in order; none in a run without.

    Raises:
        ConfigurationError: the range runs backwards.
    """
    if not context.has_partition_key and not context.has_partition_key_range:
        return []
    chosen = context.partition_key_range
    try:
        return days_between(chosen.start, chosen.end)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


def _chunks(days: Mapping[str, EventsQuery], chunk_days: int) -> list[Chunk]:
    try:
        return chunking.chunks_of(days, chunk_days)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


def _take_over(
    context: dg.OpExecutionContext, planned: EventsPlan, staging_root: Path, stored: Warehouse
) -> list[Range]:
    """Move here what runs that are over left behind; only if they did, the warehouse is asked what came later."""
    ended = ended_runs(context.instance, [folder.name for folder in staging_root.glob("events/*")])
    if not ended:
        return []
    days: Mapping[str, datetime] = {}
    if stored.path.exists():
        # Not `reading`, which refuses a file that holds nothing of Mixpanel yet.
        with stored.transaction() as connection:
            days = loaded_at(connection)
    return chunking.take_over(staging_root, planned, ended, days)


def _report_each(context: _Context, planned: EventsPlan, settled: Sequence[ChunkResult], stored: StoredEvents) -> None:
    """One materialization for each day that came; the others are noted, and fail the run."""
    days = chunking.stored_days(settled)
    sync = reports.sync_metadata(planned, settled, stored, days)
    last = max(days, default=None)
    for day, query in days.items():
        metadata = {**sync, **reports.day_metadata(stored.days[day], query)}
        if day == last:
            metadata |= timeline(outcomes_of(settled), "chunks", planned.started_at)
        context.log_event(dg.AssetMaterialization(EVENTS_KEY, partition=day, metadata=metadata))
    _note_too_old(context, settled)
    failed = chunking.failed_ranges(settled)
    if failed:
        _note_failed(context, settled)
        raise _incomplete(settled, failed)
    if sync["rejected_rows"]:
        # No check follows days that are reported one by one.
        raise OneLineFailure(reports.rejected_words(sync["rejected_rows"]), IncompleteSyncError.__name__)


def _note_failed(context: _Context, results: Sequence[ChunkResult]) -> None:
    """Leave word of the days that failed: for who fetches them again, and for Dagster, which shows a day as failed
    that a failed run planned and did not materialize.
    """
    for metadata in reports.noted_failures(results):
        context.log_event(dg.AssetObservation(EVENTS_KEY, description="some days did not come", metadata=metadata))
    node = EVENTS_KEY.to_python_identifier()
    for first, last in chunking.failed_ranges(results):
        for day in days_between(first, last):
            planned = dg.DagsterEvent.build_asset_materialization_planned_event(
                context.run.job_name, node, AssetMaterializationPlannedData(EVENTS_KEY, partition=day)
            )
            context.instance.report_dagster_event(planned, context.run.run_id)


def _note_too_old(context: _Context, results: Sequence[ChunkResult]) -> None:
    """Leave word of days that no sync can bring: what failed of them earlier is owed no more."""
    ranges, _ = chunking.unserved_ranges(results, Edge.TOO_OLD)
    if ranges:
        metadata = reports.noted_too_old(ranges, results[0].ranges[0].query.source)
        context.log_event(dg.AssetObservation(EVENTS_KEY, description="some days are not served", metadata=metadata))


def _say_unserved(context: _Context, results: Sequence[ChunkResult]) -> None:
    too_old, said = chunking.unserved_ranges(results, Edge.TOO_OLD)
    if too_old:
        context.log.warning(
            f"{reports.named(too_old)}: beyond the history that the project's plan serves, left out and not owed "
            f"({said})"
        )
    not_yet, said = chunking.unserved_ranges(results, Edge.NOT_YET)
    if not_yet:
        context.log.warning(
            f"{reports.named(not_yet)}: does not exist yet for Mixpanel, left out ({said}): MP_TIMEZONE is "
            f"{settings.timezone().key}; projects made since 2023 count their days in UTC"
        )


def _incomplete(results: Sequence[ChunkResult], failed: Sequence[Range]) -> OneLineFailure:
    days = reports.named(failed)
    reason = next(result.error for result in results if result.error)
    text = f"missing: {days}; the other days are stored; job retry_failed_event_ranges fetches them again ({reason})"
    return OneLineFailure(text, IncompleteSyncError.__name__, reports.failures_metadata(results))


def events_asset() -> dg.AssetsDefinition:
    """The asset `mixpanel/events`, with the days that the environment says now."""
    description = (
        "One row per event of the Mixpanel project; a partition is a day of its time zone. A row is keyed by "
        "event, distinct_id, time and $insert_id: loading a day again replaces it. Days that Mixpanel did not "
        "deliver keep their rows, do not show as materialized, and are fetched by the job "
        "retry_failed_event_ranges."
    )
    return stream_asset(_OPS, COLUMNS, description, report, partitions.event_days())


@dg.graph(description="Fetch only the days of events that failed and have not come since.")
def failed_event_ranges() -> None:
    """The same flow for days that nobody has to choose: Dagster wants partitions for a run of the asset."""
    _OPS.flow(report_each)
