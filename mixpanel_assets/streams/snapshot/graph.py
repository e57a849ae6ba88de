"""The asset of a stream in pages, as its data flows: page 0 -> pages in parallel -> what is still owed -> one table.

Each op hands on small objects; rows wait in staged files. No SQL and no HTTP here, and no rules: those are
snapshots.py's.
"""

import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import dagster as dg

from mixpanel_assets.client.client import MixpanelClient
from mixpanel_assets.errors import ConfigurationError, MixpanelError
from mixpanel_assets.io_manager_keys import HANDLES, WAREHOUSE
from mixpanel_assets.leftovers import delete_leftovers
from mixpanel_assets.reports import table_schemas
from mixpanel_assets.resources import HistoryResource, MixpanelResource, StagingResource, WarehouseResource
from mixpanel_assets.storage.warehouse import SCHEMA, Warehouse
from mixpanel_assets.streams.budgets import budget, keep_to, quota_warning
from mixpanel_assets.streams.failures import one_line_errors
from mixpanel_assets.streams.owed import NoRecordError
from mixpanel_assets.streams.snapshot import reports, snapshots
from mixpanel_assets.streams.snapshot.load import StagedSnapshot
from mixpanel_assets.streams.snapshot.owed import owed_pages
from mixpanel_assets.streams.snapshot.settings import SnapshotConfig
from mixpanel_assets.streams.snapshot.staged import PageResult, Snapshot, SnapshotFolder
from mixpanel_assets.streams.snapshot.stream import SnapshotQuery, SnapshotStream


@dataclass(frozen=True)
class PageOrder:
    """The order to fetch one page of a snapshot."""

    snapshot: Snapshot
    page_index: int
    on_quota: str


@dataclass(frozen=True)
class CheckedPages:
    """A snapshot, and how the fetch of its pages ended so far; none of them after a fresh start."""

    snapshot: Snapshot
    results: tuple[PageResult, ...]


_Planned = Iterator[dg.Output[Snapshot] | dg.DynamicOutput[PageOrder]]
_Checked = Iterator[dg.Output[CheckedPages] | dg.DynamicOutput[PageOrder]]
_PAGES = dg.DynamicOut(PageOrder, io_manager_key=HANDLES)


def snapshot_asset(
    stream: SnapshotStream, config: type[SnapshotConfig], *, pool: str, description: str
) -> dg.AssetsDefinition:
    """The asset `mixpanel/<name>`.

    Args:
        stream: What is fetched.
        config: Its settings.
        pool: Limits the requests in flight over all runs.
        description: For the catalog.
    """
    steps = _Steps(stream, dg.AssetKey([SCHEMA, stream.name]))
    metadata, fetch_page = _metadata_op(steps, config, pool), _fetch_op(steps, pool)
    check_pages, collect = _check_op(steps, config, pool), _collect_op(steps, config)

    @dg.config_mapping
    def flat_config(chosen: config) -> dict[str, Any]:  # type: ignore[valid-type]  # the stream's own
        values = {"config": chosen.model_dump(exclude_none=True)}  # type: ignore[attr-defined]
        return {"metadata": values, "check_pages": values, "collect": values}

    @dg.graph_asset(
        name=stream.name,
        key_prefix=SCHEMA,
        config=flat_config,
        group_name="mixpanel",
        kinds={"mixpanel", "duckdb"},
        tags={"personal_data": "true"},
        metadata={
            "dagster/table_name": f"mixpanel.{stream.name}",
            "dagster/column_schema": table_schemas.schema(stream.table_columns),
        },
        description=description,
    )
    def asset() -> StagedSnapshot:
        snapshot, pages = metadata.alias("metadata")()
        fetched = pages.map(fetch_page.alias("fetch_page")).collect()
        checked, owed = check_pages.alias("check_pages")(snapshot, fetched)
        fetched_again = owed.map(fetch_page.alias("fetch_again")).collect()
        stored: StagedSnapshot = collect.alias("collect")(checked, fetched_again)
        return stored

    return asset


# Names of ops are the code location's: a stream's own begin with its name, and are called by the last part of it.


def _metadata_op(steps: "_Steps", config: type[SnapshotConfig], pool: str) -> dg.OpDefinition:
    @dg.op(
        name=f"{steps.stream.name}_metadata",
        pool=pool,
        out={"snapshot": dg.Out(Snapshot, io_manager_key=HANDLES), "page": _PAGES},
    )
    def metadata(
        context: dg.OpExecutionContext,
        config: config,  # type: ignore[valid-type]  # the stream's own
        mixpanel: MixpanelResource,
        staging: StagingResource,
        warehouse: WarehouseResource,
        history: HistoryResource,
    ) -> _Planned:
        """Fetch page 0, and order one fetch per further page."""
        with one_line_errors():
            history.delete_old_runs(context)
            yield from steps.plan(context, config, mixpanel, staging, warehouse.open_for_sync(context.log))

    return metadata


def _fetch_op(steps: "_Steps", pool: str) -> dg.OpDefinition:
    @dg.op(name=f"{steps.stream.name}_fetch_page", pool=pool, out=dg.Out(io_manager_key=HANDLES))
    def fetch_page(
        context: dg.OpExecutionContext, order: PageOrder, mixpanel: MixpanelResource, staging: StagingResource
    ) -> dg.Output[PageResult]:
        """Fetch one page into a staged file."""
        with one_line_errors():
            return steps.fetch(context, order, mixpanel, staging)

    return fetch_page


def _check_op(steps: "_Steps", config: type[SnapshotConfig], pool: str) -> dg.OpDefinition:
    @dg.op(
        name=f"{steps.stream.name}_check_pages",
        pool=pool,
        out={"checked": dg.Out(CheckedPages, io_manager_key=HANDLES), "page": _PAGES},
    )
    def check_pages(
        context: dg.OpExecutionContext,
        config: config,  # type: ignore[valid-type]  # the stream's own
        snapshot: Snapshot,
        results: list[PageResult],
        mixpanel: MixpanelResource,
        staging: StagingResource,
    ) -> _Checked:
        """Order what is still owed: all pages if the session was lost, else those that are absent or repeat another."""
        with one_line_errors():
            yield from steps.check(context, config, CheckedPages(snapshot, tuple(results)), mixpanel, staging)

    return check_pages


def _collect_op(steps: "_Steps", config: type[SnapshotConfig]) -> dg.OpDefinition:
    @dg.op(name=f"{steps.stream.name}_collect", out=dg.Out(StagedSnapshot, io_manager_key=WAREHOUSE))
    def collect(
        context: dg.OpExecutionContext,
        config: config,  # type: ignore[valid-type]  # the stream's own
        checked: CheckedPages,
        fetched_again: list[PageResult],
        staging: StagingResource,
    ) -> dg.Output[StagedSnapshot]:
        """Judge what came, and hand it to the IO manager."""
        with one_line_errors():
            return steps.collect(context, config, checked, fetched_again, staging)

    return collect


@dataclass(frozen=True)
class _Steps:
    """What the ops of a stream do."""

    stream: SnapshotStream
    asset: dg.AssetKey

    def plan(
        self,
        context: dg.OpExecutionContext,
        config: SnapshotConfig,
        mixpanel: MixpanelResource,
        staging: StagingResource,
        stored: Warehouse,
    ) -> _Planned:
        client = mixpanel.client(config.on_quota)
        query: SnapshotQuery = replace(config.query(), source=client.profiles_source)  # type: ignore[type-var]
        stored.check_ready()
        delete_leftovers(context.instance, staging.root, self.stream.name, self._owed_snapshots(context, stored))
        first, taken_up = None, None
        if config.retry_failed_pages:
            query, taken_up = self._last_sync(context, staging, stored, query)
        if taken_up is not None:
            snapshot, pages = taken_up
            self._folder(staging, snapshot.id).claim(context.run_id)
        else:
            snapshot = snapshots.open_snapshot(self.stream, client, staging.root, query, context.log, context.run_id)
            first = self._folder(staging, snapshot.id).read_page(0)
            pages = list(range(1, snapshot.pages))
        self._announce(context, snapshot, client)
        keep_to(budget(client.queries, len(pages), session_pages=True), config.on_quota, context.log)
        yield dg.Output(snapshot, "snapshot", metadata=reports.plan_metadata(snapshot, pages, first))
        yield from _orders(snapshot, pages, config.on_quota)

    def fetch(
        self, context: dg.OpExecutionContext, order: PageOrder, mixpanel: MixpanelResource, staging: StagingResource
    ) -> dg.Output[PageResult]:
        folder = self._folder(staging, order.snapshot.id)
        client = mixpanel.client(order.on_quota)
        result = snapshots.fetch_page(client, folder, order.snapshot, order.page_index, context.log)
        if result.came:
            context.log.info(f"page {result.page_index}: {result.rows} {self.stream.name}")
        else:
            context.log.error(f"failed: {result.error}")
        return dg.Output(result, metadata=reports.page_metadata(result))

    def check(
        self,
        context: dg.OpExecutionContext,
        config: SnapshotConfig,
        fetched: CheckedPages,
        mixpanel: MixpanelResource,
        staging: StagingResource,
    ) -> _Checked:
        snapshot, results, first = fetched.snapshot, fetched.results, None
        lost = any(result.lost_session for result in results) and not snapshot.restarts
        fresh = self._start_over(context, snapshot, mixpanel.client(config.on_quota), staging) if lost else None
        if fresh is not None:
            snapshot, results = fresh, ()
            self._announce(context, snapshot, mixpanel.client(config.on_quota))
            first = self._folder(staging, snapshot.id).read_page(0)
            owed: Sequence[int] = range(1, snapshot.pages)
        else:
            owed = snapshots.owed_pages(self._folder(staging, snapshot.id), snapshot, results)
        metadata = reports.plan_metadata(snapshot, owed, first)
        yield dg.Output(CheckedPages(snapshot, results), "checked", metadata=metadata)
        yield from _orders(snapshot, owed, config.on_quota)

    def collect(
        self,
        context: dg.OpExecutionContext,
        config: SnapshotConfig,
        checked: CheckedPages,
        fetched_again: Sequence[PageResult],
        staging: StagingResource,
    ) -> dg.Output[StagedSnapshot]:
        snapshot, folder = checked.snapshot, self._folder(staging, checked.snapshot.id)
        results = snapshots.settle(folder, snapshot, [*checked.results, *fetched_again], config.max_missing_fraction)
        for result in results:
            if result.failed:
                context.log.error(f"missing from this sync: {result.error}")
        if all(result.failed and not result.served for result in results):
            raise MixpanelError(f"no page of {len(results)} came, nothing was stored or removed: {results[0].error}")
        staged = StagedSnapshot(
            stream=self.stream,
            snapshot=snapshot,
            pages=tuple(result for result in results if result.came),
            failed=tuple(result for result in results if result.failed),
            folder=folder,
            complete=snapshots.is_complete(results),
            total=snapshots.expected_total(snapshot, results),
            max_removed_fraction=config.max_removed_fraction,
        )
        metadata = reports.sync_metadata(self.stream, snapshot, results, config.max_missing_fraction, _began(context))
        # Output(data_version=...) would warn in every run that it is beta.
        context.set_data_version(self.asset, reports.data_version(results))
        return dg.Output(staged, metadata=metadata)

    def _folder(self, staging: StagingResource, snapshot_id: str) -> SnapshotFolder:
        return SnapshotFolder(staging.root, self.stream, snapshot_id)

    def _last_sync(
        self, context: dg.OpExecutionContext, staging: StagingResource, warehouse: Warehouse, wanted: SnapshotQuery
    ) -> tuple[SnapshotQuery, tuple[Snapshot, list[int]] | None]:
        """What the last materialization asked for, less what is left out now, and its snapshot with its failed pages.

        The snapshot is None when all pages have to be fetched again: its staged files are gone, or hold what is now
        left out.

        Raises:
            ConfigurationError: there is nothing to fetch again, or it is another project's.
        """
        last = owed_pages(context.instance, self.stream, self.asset, warehouse)
        name = self.asset.to_user_string()
        if not last.pages:
            raise ConfigurationError(f"nothing to fetch again: the last sync of {name} has no failed pages")
        if last.query.source != wanted.source:
            raise ConfigurationError(
                f"the failed pages are of {last.query.source or 'a project that was not noted'}, and the environment "
                f"names {wanted.source}: set it back, or sync {name} anew"
            )
        kept = last.query.kept.and_also(wanted.kept)
        query: SnapshotQuery = replace(last.query, kept=kept)  # type: ignore[type-var]
        folder = self._folder(staging, last.snapshot_id)
        snapshot = folder.read_snapshot() if last.snapshot_id else None
        if snapshot is None:
            context.log.warning("the staged pages of the last sync are gone: all pages are fetched anew")
            return query, None
        if snapshot.session_id is None:
            context.log.warning("page 0 of the last sync named no session: all pages are fetched anew")
            return query, None
        if snapshot.query.kept != query.kept:
            folder.remove()
            context.log.warning("fewer properties may be kept than at the last sync: all its pages are fetched anew")
            return query, None
        # This run may start over once, whatever the one before did.
        return snapshot.query, (replace(snapshot, restarts=0), last.pages)

    def _owed_snapshots(self, context: dg.OpExecutionContext, warehouse: Warehouse) -> list[str]:
        """Snapshots that are kept for their failed pages."""
        try:
            last = owed_pages(context.instance, self.stream, self.asset, warehouse)
        except NoRecordError:
            return []
        return [last.snapshot_id] if last.pages and last.snapshot_id else []

    def _start_over(
        self, context: dg.OpExecutionContext, snapshot: Snapshot, client: MixpanelClient, staging: StagingResource
    ) -> Snapshot | None:
        """A new snapshot in place of one whose session is lost; None when page 0 does not come either."""
        context.log.warning("the session is lost: one fresh start from page 0")
        try:
            return snapshots.open_snapshot(
                self.stream, client, staging.root, snapshot.query, context.log, context.run_id, restarts=1
            )
        except MixpanelError as error:
            context.log.error(f"the fresh start failed, so the pages that came before are kept: {error}")
            return None

    def _announce(self, context: dg.OpExecutionContext, snapshot: Snapshot, client: MixpanelClient) -> None:
        reported = "an unknown number of" if snapshot.total is None else snapshot.total
        context.log.info(f"page 0: {reported} {self.stream.name} on {snapshot.pages} pages of {snapshot.page_size}")
        warning = quota_warning(snapshot.pages, client.queries.standing().limit)
        if warning:
            context.log.warning(warning)


def _began(context: dg.OpExecutionContext) -> datetime.datetime | None:
    """When this run's process took it up; a re-execution takes over pages that were fetched before."""
    began = context.instance.get_run_stats(context.run_id).start_time
    return datetime.datetime.fromtimestamp(began, datetime.timezone.utc) if began else None


def _orders(snapshot: Snapshot, pages: Sequence[int], on_quota: str) -> Iterator[dg.DynamicOutput[PageOrder]]:
    for page in pages:
        yield dg.DynamicOutput(PageOrder(snapshot, page, on_quota), mapping_key=f"p{page:05d}", output_name="page")
