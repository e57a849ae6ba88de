"""The asset of a stream in pages: page 0 -> pages in parallel -> what is still owed -> one table.

No rules here: those are snapshots.py's. What every stream's ops do is streams/graph.py's.
"""

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import dagster as dg

from mixpanel_assets.client.client import MixpanelClient
from mixpanel_assets.errors import ConfigurationError, MixpanelError
from mixpanel_assets.leftovers import delete_leftovers
from mixpanel_assets.projects import CopiedProject
from mixpanel_assets.storage.staging import Staging
from mixpanel_assets.storage.stored_projects import check_project
from mixpanel_assets.storage.warehouse import Warehouse
from mixpanel_assets.streams.budgets import budget, quota_warning
from mixpanel_assets.streams.graph import Names, Order, Planned, Step, Steps, Sync, SyncOps, stream_asset
from mixpanel_assets.streams.owed import NoRecordError, refuse_other_database
from mixpanel_assets.streams.snapshot import incremental, reports, snapshots
from mixpanel_assets.streams.snapshot.owed import owed_pages
from mixpanel_assets.streams.snapshot.settings import SnapshotConfig
from mixpanel_assets.streams.snapshot.staged import PageResult, Snapshot, SnapshotFolder, StagedSnapshot
from mixpanel_assets.streams.snapshot.stream import SnapshotQuery, SnapshotStream


@dataclass(frozen=True)
class SnapshotPlan:
    """A snapshot to be fetched, what was chosen for it, and how the fetch of its pages ended so far."""

    snapshot: Snapshot
    chosen: SnapshotConfig
    results: tuple[PageResult, ...] = ()


def snapshot_asset(
    stream: SnapshotStream, config: type[SnapshotConfig], *, pool: str, description: str, project: CopiedProject
) -> dg.AssetsDefinition:
    """The asset `mixpanel/<name>`, or as another project has it.

    Args:
        stream: What is fetched.
        config: Its settings.
        pool: Limits the requests in flight over all runs.
        description: For the catalog.
        project: Whose data.
    """
    return stream_asset(SyncOps(_SnapshotSteps(stream, config, pool, project)), stream.table_columns, description)


class _SnapshotSteps(Steps):
    """What the ops of a stream in pages do."""

    plans_online = True
    reports = False

    def __init__(self, of: SnapshotStream, config: type[SnapshotConfig], pool: str, project: CopiedProject) -> None:
        self.of, self.config, self.pool, self.project, self.stream = of, config, pool, project, of.name
        self.names = Names(
            plan=Step("metadata", "Fetch page 0, and order one fetch per further page."),
            fetch=Step("fetch_page", "Fetch one page into a staged file."),
            check=Step(
                "check_pages",
                "Order what is still owed: all pages if the session was lost, else those that are absent or repeat "
                "another.",
            ),
            fetch_again="fetch_again",
            collect=Step("collect", "Judge what came, and hand it to the IO manager."),
            unit="page",
            definitions=f"{of.name}_",
        )

    def plan(self, sync: Sync, config: SnapshotConfig, warehouse: Warehouse) -> Planned:
        client, context = sync.client(config.on_quota), sync.context
        query: SnapshotQuery = replace(config.query(self.project.variables), source=client.profiles_source)  # type: ignore[type-var]
        # Whoever materializes all assets need not have any of these.
        if nothing := config.nothing_named(self.project.variables):
            context.log.warning(f"{nothing}; nothing is asked for, and what is stored stays")
        warehouse.check_ready()
        if not config.retry_failed_pages:  # Then the failed pages say whose they are.
            check_project(warehouse, self.stream, query.source)
        delete_leftovers(context.instance, sync.staging, self.stream, self._owed_snapshots(context, warehouse))
        taken_up = None
        if config.retry_failed_pages:
            query, taken_up = self._last_sync(context, sync.staging, warehouse, query)
        elif config.incremental_hours is not None:
            query = self._since_last(context, warehouse, query, *config.incremental_hours)
        if taken_up is None:
            snapshot = snapshots.open_snapshot(self.of, client, sync.staging, query, context.log, context.run_id)
            pages, fresh = list(range(1, snapshot.pages)), True
        else:
            (snapshot, pages), fresh = taken_up, False
            self._folder(sync.staging, snapshot.id).claim(context.run_id)
        self._announce(context, snapshot, client)
        needs = budget(client.queries, len(pages), session_pages=self.of.part is None)
        return replace(self._planned(sync.staging, SnapshotPlan(snapshot, config), pages, fresh=fresh), needs=needs)

    def fetch(self, sync: Sync, order: Order) -> PageResult:
        snapshot, page = order.what
        folder = self._folder(sync.staging, snapshot.id)
        return snapshots.fetch_page(sync.client(order.on_quota), folder, snapshot, page, sync.context.log)

    def check(self, sync: Sync, plan: SnapshotPlan, fetched: Sequence[PageResult]) -> Planned:
        client = sync.client(plan.chosen.on_quota)
        lost = any(result.lost_session for result in fetched) and not plan.snapshot.restarts
        fresh = self._start_over(sync, plan.snapshot, client) if lost else None
        if fresh is not None:
            self._announce(sync.context, fresh, client)
            return self._planned(sync.staging, SnapshotPlan(fresh, plan.chosen), range(1, fresh.pages), fresh=True)
        owed = snapshots.owed_pages(self._folder(sync.staging, plan.snapshot.id), plan.snapshot, fetched)
        return self._planned(sync.staging, replace(plan, results=tuple(fetched)), owed, fresh=False)

    def settle(
        self, context: dg.OpExecutionContext, staging: Staging, plan: SnapshotPlan, fetched: Sequence[PageResult]
    ) -> Sequence[PageResult]:
        folder, tolerated = self._folder(staging, plan.snapshot.id), plan.chosen.max_missing_fraction
        return snapshots.settle(folder, plan.snapshot, [*plan.results, *fetched], tolerated)

    def stage(
        self, context: dg.OpExecutionContext, staging: Staging, plan: SnapshotPlan, settled: Sequence[PageResult]
    ) -> tuple[StagedSnapshot, Mapping[str, Any]]:
        snapshot, chosen = plan.snapshot, plan.chosen
        staged = StagedSnapshot(
            stream=self.of,
            snapshot=snapshot,
            pages=tuple(result for result in settled if result.came),
            failed=tuple(result for result in settled if result.failed),
            folder=self._folder(staging, snapshot.id),
            complete=snapshots.is_complete(settled),
            total=snapshots.expected_total(snapshot, settled),
            max_removed_fraction=chosen.max_removed_fraction,
            schema=self.project.schema,
            keep_history=chosen.keep_history,
        )
        # Output(data_version=...) would warn in every run that it is beta.
        context.set_data_version(self.asset, reports.data_version(settled))
        began = _began(context)
        return staged, reports.sync_metadata(self.of, snapshot, settled, chosen.max_missing_fraction, began)

    def _planned(self, staging: Staging, plan: SnapshotPlan, pages: Iterable[int], *, fresh: bool) -> Planned:
        """The order of these pages; a fresh snapshot has fetched page 0, and tells of it."""
        snapshot, on_quota = plan.snapshot, plan.chosen.on_quota
        orders = [
            Order(f"p{page:05d}", f"page {page}", {"page_index": page}, (snapshot, page), on_quota) for page in pages
        ]
        first = self._folder(staging, snapshot.id).read_page(0) if fresh else None
        return Planned(plan, orders, reports.plan_metadata(snapshot, len(orders), first))

    def _folder(self, staging: Staging, snapshot_id: str) -> SnapshotFolder:
        return SnapshotFolder(staging, self.of, snapshot_id)

    def _since_last(
        self, context: dg.OpExecutionContext, warehouse: Warehouse, query: SnapshotQuery, overlap: float, longest: float
    ) -> SnapshotQuery:
        """The query for what was seen since the last whole sync; as it is where a complete one is due."""
        hours = datetime.timedelta(hours=overlap), datetime.timedelta(hours=longest)
        with warehouse.reading_if_there() as connection:
            since = incremental.since(connection, self.of, query, *hours)
        if since is None:
            context.log.info(f"a complete sync of {self.stream} is due")
            return query
        context.log.info(
            f"only {self.stream} seen since {since.moment:%Y-%m-%d %H:%M} UTC are asked for, and none is removed; the "
            f"last complete sync began at {since.complete:%Y-%m-%d %H:%M} UTC"
        )
        return query.seen_from(since.moment)

    def _last_sync(
        self, context: dg.OpExecutionContext, staging: Staging, warehouse: Warehouse, wanted: SnapshotQuery
    ) -> tuple[SnapshotQuery, tuple[Snapshot, list[int]] | None]:
        """What the last materialization asked for, less what is left out now, and its snapshot with its failed pages.

        The snapshot is None when all pages have to be fetched again: its staged files are gone, or hold what is now
        left out.

        Raises:
            ConfigurationError: there is nothing to fetch again, or it is another project's.
        """
        refuse_other_database(context.instance, self.asset, warehouse, self.of.missing_table)
        last = owed_pages(context.instance, self.of, self.asset, warehouse)
        name = self.asset.to_user_string()
        if not last.pages:
            raise ConfigurationError(f"nothing to fetch again: the last sync of {name} has no failed pages")
        if last.query.source != wanted.source:
            raise ConfigurationError(
                f"the failed pages are of {last.query.source or 'a project that was not noted'}, and the environment "
                f"names {wanted.source}: set it back, or sync {name} anew"
            )
        last.query.check()
        kept = last.query.kept.intersect(wanted.kept)
        query: SnapshotQuery = replace(last.query, kept=kept)  # type: ignore[type-var]
        folder = self._folder(staging, last.snapshot_id)
        snapshot = folder.read_snapshot() if last.snapshot_id else None
        if snapshot is None:
            context.log.warning("the staged pages of the last sync are gone: all pages are fetched anew")
            return query, None
        if snapshot.session_of(last.pages[0]) is None:
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
            last = owed_pages(context.instance, self.of, self.asset, warehouse)
        except NoRecordError:
            return []
        return [last.snapshot_id] if last.pages and last.snapshot_id else []

    def _start_over(self, sync: Sync, snapshot: Snapshot, client: MixpanelClient) -> Snapshot | None:
        """A new snapshot in place of one whose session is lost; None when page 0 does not come either."""
        log = sync.context.log
        log.warning("the session is lost: one fresh start from page 0")
        try:
            return snapshots.open_snapshot(
                self.of, client, sync.staging, snapshot.query, log, sync.context.run_id, restarts=1
            )
        except MixpanelError as error:
            log.error(f"the fresh start failed, so the pages that came before are kept: {error}")
            return None

    def _announce(self, context: dg.OpExecutionContext, snapshot: Snapshot, client: MixpanelClient) -> None:
        if snapshot.parts is not None:
            context.log.info(f"page 0: {len(snapshot.parts.names)} parts, {len(snapshot.parts.empty)} more are empty")
            return
        reported = "an unknown number of" if snapshot.total is None else snapshot.total
        context.log.info(f"page 0: {reported} {self.stream} on {snapshot.pages} pages of {snapshot.page_size}")
        warning = quota_warning(snapshot.pages, client.queries.quota().limit)
        if warning:
            context.log.warning(warning)


def _began(context: dg.OpExecutionContext) -> datetime.datetime | None:
    """When this run's process took it up; a re-execution takes over pages that were fetched before."""
    began = context.instance.get_run_stats(context.run_id).start_time
    return datetime.datetime.fromtimestamp(began, datetime.timezone.utc) if began else None
