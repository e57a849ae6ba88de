"""`mixpanel/events`, as its data flows: days -> chunks in parallel -> one transaction -> what each day got.

Each op hands on small objects; lines wait in staged files. No SQL and no HTTP here, and no rules: those are
chunking.py's. Dagster calls an asset stored, or not stored, as a whole; here some days may come and others not.
So the rows are written by an op amid the graph, and the last op says which days are materialized.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path

import dagster as dg
from dagster._core.events import AssetMaterializationPlannedData

from mixpanel_assets import partitions, settings
from mixpanel_assets.client.served_days import Edge
from mixpanel_assets.errors import ConfigurationError, IncompleteSyncError, MixpanelError, error_of
from mixpanel_assets.io_manager_keys import HANDLES, WAREHOUSE
from mixpanel_assets.leftovers import delete_leftovers, ended_runs
from mixpanel_assets.pools import EXPORT_POOL
from mixpanel_assets.reports import table_schemas
from mixpanel_assets.resources import HistoryResource, MixpanelResource, StagingResource, WarehouseResource
from mixpanel_assets.storage.warehouse import SCHEMA, Warehouse
from mixpanel_assets.streams.budgets import budget, keep_to
from mixpanel_assets.streams.days import days_between
from mixpanel_assets.streams.events import chunking, reports
from mixpanel_assets.streams.events.chunking import Chunk, ChunkOrder, ChunkResult, EventsPlan, Range
from mixpanel_assets.streams.events.load import StagedEvents
from mixpanel_assets.streams.events.owed import owed_days
from mixpanel_assets.streams.events.query import EventsQuery
from mixpanel_assets.streams.events.settings import EventsConfig
from mixpanel_assets.streams.events.stored import COLUMNS, StoredEvents, loaded_at
from mixpanel_assets.streams.failures import OneLineFailure, one_line_errors

EVENTS_KEY = dg.AssetKey([SCHEMA, "events"])

_Context = dg.OpExecutionContext | dg.AssetExecutionContext


@dataclass(frozen=True)
class FetchOrder:
    """The order to fetch one chunk."""

    chunk: ChunkOrder
    on_quota: str


@dg.op(
    out={
        "planned": dg.Out(EventsPlan, io_manager_key=HANDLES),
        "chunk": dg.DynamicOut(FetchOrder, io_manager_key=HANDLES),
    }
)
def plan(
    context: dg.OpExecutionContext,
    config: EventsConfig,
    mixpanel: MixpanelResource,
    staging: StagingResource,
    warehouse: WarehouseResource,
    history: HistoryResource,
) -> Iterator[dg.Output[EventsPlan] | dg.DynamicOutput[FetchOrder]]:
    """Split the days into chunks, and order one fetch per chunk."""
    with one_line_errors():
        client = mixpanel.client(config.on_quota)
        query = replace(config.query(), source=client.events_source)
        stored = warehouse.open_for_sync(context.log)
        days = _owed_days(context, query, stored) if config.retry_failed_ranges else _days(context, query)
        chunks = _chunks(days, config.chunk_days)
        stored.check_ready()
        history.delete_old_runs(context)
        planned = EventsPlan(
            context.run_id,
            tuple(chunks),
            datetime.now(timezone.utc),
            partitions.today(),
            config.max_removed_fraction,
            config.zone(),
        )
        taken = _take_over(context, planned, staging.root, stored)
        delete_leftovers(context.instance, staging.root)
        for from_date, to_date in taken:
            context.log.info(f"{from_date} to {to_date}: fetched by an earlier run that ended before it was stored")
        keep_to(budget(client.exports, len(chunks) - len(taken)), config.on_quota, context.log)
        yield dg.Output(planned, "planned", metadata={"total_batches": len(chunks), "batches_ordered": len(chunks)})
        for index in range(len(chunks)):
            order = FetchOrder(planned.order(index), config.on_quota)
            yield dg.DynamicOutput(order, mapping_key=f"c{index:05d}", output_name="chunk")


@dg.op(pool=EXPORT_POOL, out=dg.Out(io_manager_key=HANDLES))
def fetch_chunk(
    context: dg.OpExecutionContext, order: FetchOrder, mixpanel: MixpanelResource, staging: StagingResource
) -> dg.Output[ChunkResult]:
    """Fetch one chunk into staged files."""
    with one_line_errors():
        client = mixpanel.client(order.on_quota)
        result = chunking.fetch_chunk(client, staging.root, order.chunk, context.log)
        chunk = order.chunk.chunk
        if result.came:
            context.log.info(f"{chunk.from_date} to {chunk.to_date}: {result.lines} events")
        else:
            context.log.error(f"failed: {result.error}")
        return dg.Output(result, metadata=reports.chunk_metadata(order.chunk, result))


# The table is named here because this output is no asset's: the asset's last word is `report`.
_STORED = dg.Out(StagedEvents, io_manager_key=WAREHOUSE, metadata={"schema": SCHEMA, "table": "events"})


@dg.op(out={"settled": dg.Out(list[ChunkResult], io_manager_key=HANDLES), "stored": _STORED})
def collect_events(
    context: dg.OpExecutionContext, planned: EventsPlan, results: list[ChunkResult], staging: StagingResource
) -> Iterator[dg.Output[list[ChunkResult]] | dg.Output[StagedEvents]]:
    """Judge what came, and hand it to the IO manager."""
    with one_line_errors():
        settled = chunking.settle(staging.root, planned, results)
        parts = [part for result in settled for part in result.ranges]
        for part in parts:
            if part.failed:
                context.log.error(f"missing from this sync: {part.error}")
        _say_unserved(context, settled)
        failed = tuple(part for part in parts if part.failed)
        if failed and not any(part.came for part in parts):
            _note_failed(context, settled)
            raise error_of(
                failed[0].error_kind or MixpanelError.__name__,
                f"no chunk of {len(settled)} came, nothing was stored or removed: {failed[0].error}",
            )
        yield dg.Output(settled, "settled")
        came = tuple(part for part in parts if part.came)
        unserved = tuple(part for part in parts if part.unserved)
        staged = StagedEvents(
            staging.root, came, failed, unserved, planned.today, planned.max_removed_fraction, planned.zone
        )
        yield dg.Output(staged, "stored")


@dg.op(out=dg.Out(dg.Nothing, is_required=False))
def report(
    context: dg.AssetExecutionContext, planned: EventsPlan, settled: list[ChunkResult], stored: StoredEvents
) -> Iterator[dg.Output[None]]:
    """Say which days are stored: as Dagster does when all that were chosen came, else one by one."""
    settled = _without_refused(settled, stored)
    days = chunking.stored_days(settled)
    if chunking.failed_ranges(settled) or list(days) != _chosen_days(context):
        _report_each(context, planned, settled, stored)
        return
    for day, query in days.items():
        context.add_asset_metadata(reports.day_metadata(stored.days[day], query), EVENTS_KEY, partition_key=day)
    drawn = reports.timeline_metadata(settled, planned.started_at)
    context.add_asset_metadata(drawn, EVENTS_KEY, partition_key=max(days))
    yield dg.Output(None, metadata=reports.sync_metadata(planned, settled, stored, days))


@dg.op(out=dg.Out(dg.Nothing))
def report_each(
    context: dg.OpExecutionContext, planned: EventsPlan, settled: list[ChunkResult], stored: StoredEvents
) -> None:
    """Say which days are stored, in a run that is no asset's."""
    _report_each(context, planned, _without_refused(settled, stored), stored)


def _without_refused(settled: list[ChunkResult], stored: StoredEvents) -> list[ChunkResult]:
    return chunking.without_refused(settled, {(each.day, each.query): each.reason for each in stored.refused})


@dg.config_mapping
def _flat_config(config: EventsConfig) -> dict[str, object]:
    return {"plan": {"config": config.model_dump(exclude_none=True)}}


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
            metadata |= reports.timeline_metadata(settled, planned.started_at)
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

    @dg.graph_asset(
        name="events",
        key_prefix=SCHEMA,
        config=_flat_config,
        group_name="mixpanel",
        kinds={"mixpanel", "duckdb"},
        partitions_def=partitions.event_days(),
        backfill_policy=dg.BackfillPolicy.single_run(),
        tags={"personal_data": "true"},
        metadata={"dagster/table_name": "mixpanel.events", "dagster/column_schema": table_schemas.schema(COLUMNS)},
        description=(
            "One row per event of the Mixpanel project; a partition is a day of its time zone. A row is keyed by "
            "event, distinct_id, time and $insert_id: loading a day again replaces it. Days that Mixpanel did not "
            "deliver keep their rows, do not show as materialized, and are fetched by the job "
            "retry_failed_event_ranges."
        ),
    )
    def events() -> None:
        planned, chunks = plan()
        settled, stored = collect_events(planned, chunks.map(fetch_chunk).collect())
        said: None = report(planned, settled, stored)
        return said

    return events


@dg.graph(description="Fetch only the days of events that failed and have not come since.")
def failed_event_ranges() -> None:
    """The same flow for days that nobody has to choose: Dagster wants partitions for a run of the asset."""
    planned, chunks = plan()
    settled, stored = collect_events(planned, chunks.map(fetch_chunk).collect())
    report_each(planned, settled, stored)
