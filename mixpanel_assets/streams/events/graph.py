"""The asset of events: days -> chunks in parallel -> one transaction -> what each day got.

No rules here: those are chunking.py's. What every stream's ops do is streams/graph.py's. Dagster calls an asset stored,
or not stored, as a whole; here some days may come and others not. So the rows are written by an op amid the graph, and
the last op says which days are materialized.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any

import dagster as dg
from dagster._core.events import AssetMaterializationPlannedData

from mixpanel_assets import partitions, settings
from mixpanel_assets.client.served_days import Edge
from mixpanel_assets.errors import ConfigurationError, IncompleteSyncError
from mixpanel_assets.leftovers import delete_leftovers, ended_runs
from mixpanel_assets.pools import EXPORT_POOL
from mixpanel_assets.projects import CopiedProject
from mixpanel_assets.resources import ProjectResources
from mixpanel_assets.storage.identity import identity
from mixpanel_assets.storage.staging import Staging
from mixpanel_assets.storage.stored_projects import check_project
from mixpanel_assets.storage.warehouse import Warehouse
from mixpanel_assets.streams.budgets import budget
from mixpanel_assets.streams.days import days_between
from mixpanel_assets.streams.events import chunking, reports
from mixpanel_assets.streams.events.chunking import Chunk, ChunkResult, EventsPlan, Range
from mixpanel_assets.streams.events.owed import owed_days
from mixpanel_assets.streams.events.query import EventsQuery
from mixpanel_assets.streams.events.sample import stored_sample
from mixpanel_assets.streams.events.settings import EventsConfig
from mixpanel_assets.streams.events.staged import StagedEvents, StagedSample
from mixpanel_assets.streams.events.stored import COLUMNS, StoredEvents, loaded_at
from mixpanel_assets.streams.events.stored import stored as stored_events
from mixpanel_assets.streams.events.taken_over import take_over
from mixpanel_assets.streams.failures import OneLineFailure, one_line_errors
from mixpanel_assets.streams.graph import Names, Order, Planned, Step, Steps, Sync, SyncOps, stream_asset
from mixpanel_assets.streams.outcome import outcomes_of
from mixpanel_assets.streams.owed import STORED_IN, WAREHOUSE_ID, refuse_other_number
from mixpanel_assets.streams.reports import timeline

TABLE = "events"
RETRY_JOB = "retry_failed_event_ranges"

_SAMPLE = StagedSample.table
_Context = dg.OpExecutionContext | dg.AssetExecutionContext


class _EventsSteps(Steps):
    """What the ops of events do."""

    stream, pool = TABLE, EXPORT_POOL
    config = EventsConfig
    plans_online = False
    reports = True
    names = Names(
        plan=Step("plan", "Split the days into chunks, and order one fetch per chunk."),
        fetch=Step("fetch_chunk", "Fetch one chunk into staged files."),
        collect=Step("collect_events", "Judge what came, and hand it to the IO manager."),
        unit="chunk",
    )

    def __init__(self, project: CopiedProject) -> None:
        self.project = project

    def plan(self, sync: Sync, config: EventsConfig, warehouse: Warehouse) -> Planned:
        client, context, variables = sync.client(config.on_quota), sync.context, self.project.variables
        query = replace(config.query(variables), source=client.events_source)
        days = self._owed_days(context, query, warehouse) if config.retry_failed_ranges else self._days(context, query)
        chunks = _chunks(days, config)
        warehouse.check_ready()
        check_project(warehouse, _SAMPLE if config.limit else TABLE, query.source)
        sync.staging.prepare(TABLE)
        plan = EventsPlan(
            context.run_id,
            tuple(chunks),
            datetime.now(timezone.utc),
            partitions.today(variables),
            config.max_removed_fraction,
            config.zone(variables),
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
        self, context: dg.OpExecutionContext, staging: Staging, plan: EventsPlan, fetched: Sequence[ChunkResult]
    ) -> Sequence[ChunkResult]:
        settled = chunking.settle(staging, plan, fetched)
        reports.say_unserved(context.log, settled, self.project.variables)
        return settled

    def note_failed(self, context: _Context, settled: Sequence[ChunkResult]) -> None:
        """Leave word of the days that failed: for who fetches them again, and for Dagster, which shows a day as failed
        that a failed run planned and did not materialize. What failed of a sample is owed to nobody.
        """
        if chunking.is_sample(settled):
            return
        for metadata in reports.noted_failures(settled):
            context.log_event(dg.AssetObservation(self.asset, description="some days did not come", metadata=metadata))
        node = self.asset.to_python_identifier()
        for first, last in chunking.failed_ranges(settled):
            for day in days_between(first, last):
                planned = dg.DagsterEvent.build_asset_materialization_planned_event(
                    context.run.job_name, node, AssetMaterializationPlannedData(self.asset, partition=day)
                )
                context.instance.report_dagster_event(planned, context.run.run_id)

    def stage(
        self, context: dg.OpExecutionContext, staging: Staging, plan: EventsPlan, settled: Sequence[ChunkResult]
    ) -> tuple[StagedEvents, Mapping[str, Any]]:
        parts = [part for result in settled for part in result.ranges]
        kind = StagedSample if chunking.is_sample(settled) else StagedEvents
        staged = kind(
            staging,
            tuple(part for part in parts if part.came),
            tuple(part for part in parts if part.failed),
            tuple(part for part in parts if part.unserved),
            plan.today,
            plan.max_removed_fraction,
            plan.zone,
            self.project.schema,
        )
        return staged, {}

    def report(
        self, context: dg.AssetExecutionContext, planned: EventsPlan, settled: list[ChunkResult]
    ) -> Iterator[dg.Output[None]]:
        """Say which days are stored: as Dagster does when all that were chosen came, else one by one."""
        if chunking.is_sample(settled):
            self._report_sample(context, planned, settled)
            return
        stored = self.stored(context)
        settled = _without_refused(settled, stored)
        days = chunking.stored_days(settled)
        if chunking.failed_ranges(settled) or list(days) != _chosen_days(context):
            self._report_each(context, planned, settled, stored)
            return
        for day, query in days.items():
            context.add_asset_metadata(reports.day_metadata(stored.days[day], query), self.asset, partition_key=day)
        drawn = timeline(outcomes_of(settled), "chunks", planned.started_at)
        context.add_asset_metadata(drawn, self.asset, partition_key=max(days))
        yield dg.Output(None, metadata=self._said(planned, settled, stored, days))

    def _report_sample(self, context: _Context, planned: EventsPlan, settled: list[ChunkResult]) -> None:
        """Say what the sample is, of an asset of its own: no day is materialized by it."""
        if not chunking.stored_days(settled):
            return
        warehouse = ProjectResources(context.resources, self.project).warehouse
        with one_line_errors(), warehouse.open(context.log, self.project.schema).reading() as connection:
            stored = stored_sample(connection)
        said = reports.sample_metadata(planned, settled, stored, f"{self.project.schema}.{_SAMPLE}")
        context.log_event(dg.AssetMaterialization(self.project.key(_SAMPLE), metadata=said))
        if stored.rejected:
            words = reports.rejected_words(stored.rejected, self.project.schema)
            raise OneLineFailure(words, IncompleteSyncError.__name__)

    def report_each(self, context: _Context, planned: EventsPlan, settled: list[ChunkResult]) -> None:
        """Say which days are stored, in a run that is no asset's."""
        stored = self.stored(context)
        self._report_each(context, planned, _without_refused(settled, stored), stored)

    def stored(self, context: _Context) -> StoredEvents:
        """What the table says."""
        warehouse = ProjectResources(context.resources, self.project).warehouse.open(context.log, self.project.schema)
        with one_line_errors(), warehouse.reading() as connection:
            return replace(stored_events(connection), database=warehouse.name, warehouse_id=identity(connection) or "")

    def _report_each(
        self, context: _Context, planned: EventsPlan, settled: list[ChunkResult], stored: StoredEvents
    ) -> None:
        """One materialization for each day that came; the others are noted, and fail the run."""
        days = chunking.stored_days(settled)
        sync = self._said(planned, settled, stored, days)
        last = max(days, default=None)
        for day, query in days.items():
            metadata = {**sync, **reports.day_metadata(stored.days[day], query)}
            if day == last:
                metadata |= timeline(outcomes_of(settled), "chunks", planned.started_at)
            context.log_event(dg.AssetMaterialization(self.asset, partition=day, metadata=metadata))
        self._note_too_old(context, settled)
        failed = chunking.failed_ranges(settled)
        if failed:
            self.note_failed(context, settled)
            raise reports.incomplete(settled, failed, self.project.called(RETRY_JOB))
        if sync["rejected_rows"]:
            # No check follows days that are reported one by one.
            words = reports.rejected_words(sync["rejected_rows"], self.project.schema)
            raise OneLineFailure(words, IncompleteSyncError.__name__)

    def _said(
        self, planned: EventsPlan, settled: Sequence[ChunkResult], stored: StoredEvents, days: Iterable[str]
    ) -> dict[str, Any]:
        said = reports.sync_metadata(planned, settled, stored, days, f"{self.project.schema}.{TABLE}")
        return {**said, STORED_IN: stored.database, WAREHOUSE_ID: stored.warehouse_id}

    def _note_too_old(self, context: _Context, results: Sequence[ChunkResult]) -> None:
        """Leave word of days that no sync can bring: what failed of them earlier is owed no more."""
        ranges, _ = chunking.unserved_ranges(results, Edge.TOO_OLD)
        if ranges:
            metadata = reports.noted_too_old(ranges, results[0].ranges[0].query.source)
            context.log_event(
                dg.AssetObservation(self.asset, description="some days are not served", metadata=metadata)
            )

    def _days(self, context: dg.OpExecutionContext, query: EventsQuery) -> dict[str, EventsQuery]:
        """The days that are chosen, each with what is asked of it.

        Raises:
            ConfigurationError: no days are chosen, they are in the future, or a setting is wrong.
        """
        settings.events_start_date(self.project.variables)
        today = partitions.today(self.project.variables)
        chosen = _chosen_days(context)
        if not chosen:
            raise ConfigurationError("no days are chosen: materialize partitions, e.g. --partition 2026-01-31")
        if chosen[-1] > today:
            raise ConfigurationError(f"{chosen[-1]} is in the future: the project's present day is {today}")
        return dict.fromkeys(chosen, query)

    def _owed_days(
        self, context: dg.OpExecutionContext, query: EventsQuery, warehouse: Warehouse
    ) -> dict[str, EventsQuery]:
        """The days that failed, of those chosen or, with none chosen, all: each as it was asked for, but with what may
        be kept now as well.

        Raises:
            ConfigurationError: there are none, none is on record, or a setting is wrong.
        """
        settings.events_start_date(self.project.variables)
        chosen = _chosen_days(context)
        with warehouse.reading_if_there() as connection:
            last = context.instance.get_latest_materialization_event(self.asset)
            refuse_other_number(context.instance, last, connection, warehouse)
        found = owed_days(context.instance, self.asset, warehouse, query.source)
        asked = {
            day: replace(failed, kept=failed.kept.intersect(query.kept), source=query.source)
            for day, failed in found.items()
            if (not chosen or day in chosen) and query.covers(failed)
        }
        if not asked:
            asset = self.asset.to_user_string()
            raise ConfigurationError(f"nothing to fetch again: no day of {asset} has failed since it last came")
        for each in dict.fromkeys(asked.values()):
            each.check()
        return asked


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


def _chunks(days: Mapping[str, EventsQuery], config: EventsConfig) -> list[Chunk]:
    try:
        return chunking.sample_of(days) if config.limit else chunking.chunks_of(days, config.chunk_days)
    except ValueError as error:
        raise ConfigurationError(str(error)) from None


def _take_over(context: dg.OpExecutionContext, planned: EventsPlan, staging: Staging, stored: Warehouse) -> list[Range]:
    """Move here what runs that are over left behind; only if they did, the warehouse is asked what came later."""
    ended = ended_runs(context.instance, [folder.name for folder in staging.folders() if folder.stream == TABLE])
    if not ended:
        return []
    with stored.reading_if_there() as connection:
        days: Mapping[str, datetime] = loaded_at(connection) if connection else {}
    return take_over(staging, planned, ended, days)


class EventsOps:
    """The ops of a project's events, and what is made of them."""

    def __init__(self, project: CopiedProject) -> None:
        self._project = project
        self._steps = steps = _EventsSteps(project)
        self._ops = SyncOps(steps)

        after, needed = {"stored": dg.In(dg.Nothing)}, project.resource_keys("warehouse")

        @dg.op(
            name=project.called("report"),
            ins=after,
            out=dg.Out(dg.Nothing, is_required=False),
            required_resource_keys=needed,
        )
        def report(
            context: dg.AssetExecutionContext, planned: EventsPlan, settled: list[ChunkResult]
        ) -> Iterator[dg.Output[None]]:
            """Say which days are stored: as Dagster does when all that were chosen came, else one by one."""
            yield from steps.report(context, planned, settled)

        @dg.op(
            name=project.called("report_each"),
            ins=after,
            out=dg.Out(dg.Nothing),
            required_resource_keys=needed,
        )
        def report_each(context: dg.OpExecutionContext, planned: EventsPlan, settled: list[ChunkResult]) -> None:
            """Say which days are stored, in a run that is no asset's."""
            steps.report_each(context, planned, settled)

        self._report, self._report_each = report, report_each

    def asset(self) -> dg.AssetsDefinition:
        """The asset, with the days that the settings say now."""
        description = (
            "One row per event of the Mixpanel project; a partition is a day of its time zone. A row is keyed by "
            "event, distinct_id, time and $insert_id: loading a day again replaces it. Days that Mixpanel did not "
            "deliver keep their rows, do not show as materialized, and are fetched by the job "
            f"{self._project.called(RETRY_JOB)}."
        )
        days = partitions.event_days(self._project.variables)
        return stream_asset(self._ops, COLUMNS, description, self._report, days)

    def retry_job(self, executor: dg.ExecutorDefinition) -> dg.JobDefinition:
        """The same flow for days that nobody has to choose: Dagster wants partitions for a run of the asset."""

        @dg.graph(
            name=self._project.called("failed_event_ranges"),
            description="Fetch only the days of events that failed and have not come since.",
        )
        def failed_event_ranges() -> None:
            self._ops.flow(report=self._report_each, called="report_each")

        return failed_event_ranges.to_job(
            self._project.called(RETRY_JOB),
            config=dg.RunConfig(ops={"plan": EventsConfig(retry_failed_ranges=True)}),
            executor_def=executor,
            tags=self._project.tags,
            description="Fetch only the days of events that failed and have not come since. No partitions to choose.",
        )
