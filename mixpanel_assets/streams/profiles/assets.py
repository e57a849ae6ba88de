"""`mixpanel/profiles`, as its data flows: page 0 -> pages in parallel -> what is still owed -> one table.

Each op hands on small objects; rows wait in staged files. No SQL and no HTTP here, and no rules: those are
snapshots.py's.
"""

import dataclasses
import datetime
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import dagster as dg
from pydantic import Field

from mixpanel_assets.client.client import MixpanelClient
from mixpanel_assets.errors import ConfigurationError, MixpanelError
from mixpanel_assets.io_manager_keys import HANDLES, WAREHOUSE
from mixpanel_assets.leftovers import delete_leftovers
from mixpanel_assets.pools import ENGAGE_POOL
from mixpanel_assets.reports import table_schemas
from mixpanel_assets.resources import HistoryResource, MixpanelResource, StagingResource, WarehouseResource
from mixpanel_assets.storage.warehouse import Warehouse
from mixpanel_assets.streams import owed
from mixpanel_assets.streams.budgets import budget, check_choice, keep_to, quota_warning
from mixpanel_assets.streams.failures import one_line_errors
from mixpanel_assets.streams.profiles import reports, snapshots
from mixpanel_assets.streams.profiles.load import StagedProfiles
from mixpanel_assets.streams.profiles.query import ProfileQuery
from mixpanel_assets.streams.profiles.staged import PageResult, Snapshot, SnapshotFolder
from mixpanel_assets.streams.settings import SyncConfig, check_fraction

PROFILES_KEY = dg.AssetKey(["mixpanel", "profiles"])


class ProfilesConfig(SyncConfig):
    """Settings of one profiles sync."""

    where: str | None = Field(default=None, description='Filter expression, e.g. properties["plan"] == "pro".')
    cohort_id: int | None = Field(default=None, description="Only members of this cohort.")
    include_all_users: bool | None = Field(
        default=None, description="With cohort_id: also ids that have no profile (default: only real profiles)."
    )
    output_properties: list[str] | None = Field(default=None, description="Only these properties (default: all).")
    page_size: int | None = Field(
        default=None, description="Profiles per page wished for; what Mixpanel answers decides (its default: 1000)."
    )
    data_group_id: str | None = Field(default=None, description="Group profiles of this group, instead of users.")
    max_removed_fraction: float = Field(
        default=0.5, description="Refuse a snapshot that would remove a larger share of the stored profiles (0 to 1)."
    )
    max_missing_fraction: float = Field(
        default=0.001,
        description=(
            "Share of the reported profiles (0 to 1) that may be missing from pages that came, as those deleted "
            "meanwhile are: told, and removing nobody; beyond it the sync fails, after storing what came."
        ),
    )
    retry_failed_pages: bool = Field(
        default=False, description="Fetch only the pages that failed last time, under the same session."
    )

    def query(self) -> ProfileQuery:
        """What is asked of Mixpanel.

        Raises:
            ConfigurationError: a setting is out of range, or two contradict each other.
        """
        check_fraction(self.max_removed_fraction)
        check_fraction(self.max_missing_fraction, "max_missing_fraction")
        check_choice(self.on_quota)
        query = ProfileQuery(
            where=self.where,
            cohort_id=self.cohort_id,
            include_all_users=self.include_all_users,
            output_properties=None if self.output_properties is None else tuple(self.output_properties),
            page_size=self.page_size,
            data_group_id=self.data_group_id,
            kept=self.kept(),
        )
        query.check()
        return query


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


@dg.op(
    pool=ENGAGE_POOL,
    out={
        "snapshot": dg.Out(Snapshot, io_manager_key=HANDLES),
        "page": dg.DynamicOut(PageOrder, io_manager_key=HANDLES),
    },
)
def metadata(
    context: dg.OpExecutionContext,
    config: ProfilesConfig,
    mixpanel: MixpanelResource,
    staging: StagingResource,
    warehouse: WarehouseResource,
    history: HistoryResource,
) -> Iterator[dg.Output[Snapshot] | dg.DynamicOutput[PageOrder]]:
    """Fetch page 0, and order one fetch per further page."""
    with one_line_errors():
        client = mixpanel.client(config.on_quota)
        query = dataclasses.replace(config.query(), source=client.profiles_source)
        stored = warehouse.open(context.log)
        stored.check_ready()
        delete_leftovers(context.instance, staging.root, _owed_snapshots(context, stored))
        history.delete_old_runs(context)
        first = None
        query, taken_up = _last_sync(context, staging, stored, query) if config.retry_failed_pages else (query, None)
        if taken_up is not None:
            snapshot, pages = taken_up
            SnapshotFolder(staging.root, snapshot.id).claim(context.run_id)
        else:
            snapshot = snapshots.open_snapshot(client, staging.root, query, context.log, context.run_id)
            first = SnapshotFolder(staging.root, snapshot.id).read_page(0)
            pages = list(range(1, snapshot.pages))
        _announce(context, snapshot, client)
        keep_to(budget(client.queries, len(pages), session_pages=True), config.on_quota, context.log)
        yield dg.Output(snapshot, "snapshot", metadata=reports.plan_metadata(snapshot, pages, first))
        yield from _orders(snapshot, pages, config.on_quota)


@dg.op(pool=ENGAGE_POOL, out=dg.Out(io_manager_key=HANDLES))
def fetch_page(
    context: dg.OpExecutionContext, order: PageOrder, mixpanel: MixpanelResource, staging: StagingResource
) -> dg.Output[PageResult]:
    """Fetch one page into a staged file."""
    with one_line_errors():
        folder = SnapshotFolder(staging.root, order.snapshot.id)
        result = snapshots.fetch_page(
            mixpanel.client(order.on_quota), folder, order.snapshot, order.page_index, context.log
        )
        if result.came:
            context.log.info(f"page {result.page_index}: {result.rows} profiles")
        else:
            context.log.error(f"failed: {result.error}")
        return dg.Output(result, metadata=reports.page_metadata(result))


@dg.op(
    pool=ENGAGE_POOL,
    out={
        "checked": dg.Out(CheckedPages, io_manager_key=HANDLES),
        "page": dg.DynamicOut(PageOrder, io_manager_key=HANDLES),
    },
)
def check_pages(
    context: dg.OpExecutionContext,
    config: ProfilesConfig,
    snapshot: Snapshot,
    results: list[PageResult],
    mixpanel: MixpanelResource,
    staging: StagingResource,
) -> Iterator[dg.Output[CheckedPages] | dg.DynamicOutput[PageOrder]]:
    """Order what is still owed: all pages if the session was lost, else those that are absent or repeat another."""
    with one_line_errors():
        first = None
        lost = any(result.lost_session for result in results) and not snapshot.restarts
        fresh = _start_over(context, snapshot, mixpanel.client(config.on_quota), staging) if lost else None
        if fresh is not None:
            snapshot = fresh
            _announce(context, snapshot, mixpanel.client(config.on_quota))
            first = SnapshotFolder(staging.root, snapshot.id).read_page(0)
            owed: Sequence[int] = range(1, snapshot.pages)
            results = []
        else:
            owed = snapshots.owed_pages(SnapshotFolder(staging.root, snapshot.id), snapshot, results)
        checked = CheckedPages(snapshot, tuple(results))
        yield dg.Output(checked, "checked", metadata=reports.plan_metadata(snapshot, owed, first))
        yield from _orders(snapshot, owed, config.on_quota)


@dg.op(out=dg.Out(StagedProfiles, io_manager_key=WAREHOUSE))
def collect(
    context: dg.OpExecutionContext,
    config: ProfilesConfig,
    checked: CheckedPages,
    fetched_again: list[PageResult],
    staging: StagingResource,
) -> dg.Output[StagedProfiles]:
    """Judge what came, and hand it to the IO manager."""
    with one_line_errors():
        snapshot = checked.snapshot
        folder = SnapshotFolder(staging.root, snapshot.id)
        results = snapshots.settle(folder, snapshot, [*checked.results, *fetched_again], config.max_missing_fraction)
        for result in results:
            if result.failed:
                context.log.error(f"missing from this sync: {result.error}")
        if all(result.failed and not result.served for result in results):
            raise MixpanelError(f"no page of {len(results)} came, nothing was stored or removed: {results[0].error}")
        staged = StagedProfiles(
            snapshot=snapshot,
            pages=tuple(result for result in results if result.came),
            failed=tuple(result for result in results if result.failed),
            folder=folder,
            complete=snapshots.is_complete(results),
            total=snapshots.expected_total(snapshot, results),
            max_removed_fraction=config.max_removed_fraction,
        )
        metadata = reports.profiles_metadata(snapshot, results, config.max_missing_fraction, _began(context))
        # Output(data_version=...) would warn in every run that it is beta.
        context.set_data_version(PROFILES_KEY, reports.data_version(results))
        return dg.Output(staged, metadata=metadata)


@dg.config_mapping
def _flat_config(config: ProfilesConfig) -> dict[str, object]:
    settings = {"config": config.model_dump(exclude_none=True)}
    return {"metadata": settings, "check_pages": settings, "collect": settings}


@dg.graph_asset(
    name="profiles",
    key_prefix="mixpanel",
    config=_flat_config,
    group_name="mixpanel",
    kinds={"mixpanel", "duckdb"},
    tags={"personal_data": "true"},
    metadata={"dagster/table_name": "mixpanel.profiles", "dagster/column_schema": table_schemas.PROFILES},
    description=(
        "One row per user profile of the Mixpanel project, as of the last sync. A complete sync replaces the table: "
        "profiles deleted in Mixpanel go. A sync with failed pages adds and updates, and removes nothing; the job "
        "retry_failed_profile_pages fetches those pages alone."
    ),
)
def profiles() -> StagedProfiles:
    snapshot, pages = metadata()
    checked, owed = check_pages(snapshot, pages.map(fetch_page).collect())
    stored: StagedProfiles = collect(checked, owed.map(fetch_page.alias("fetch_again")).collect())
    return stored


def _last_sync(
    context: dg.OpExecutionContext, staging: StagingResource, warehouse: Warehouse, wanted: ProfileQuery
) -> tuple[ProfileQuery, tuple[Snapshot, list[int]] | None]:
    """What the last materialization asked for, less what is left out now, and its snapshot with its failed pages.

    The snapshot is None when all pages have to be fetched again: its staged files are gone, or hold what is now left
    out.

    Raises:
        ConfigurationError: there is nothing to fetch again, or it is another project's.
    """
    said = owed.owed_pages(context.instance, PROFILES_KEY, warehouse)
    if not said.pages:
        raise ConfigurationError("nothing to fetch again: the last sync of mixpanel/profiles has no failed pages")
    if said.query.source != wanted.source:
        raise ConfigurationError(
            f"the failed pages are of {said.query.source or 'a project that was not noted'}, and the environment names "
            f"{wanted.source}: set it back, or sync mixpanel/profiles anew"
        )
    query = dataclasses.replace(said.query, kept=said.query.kept.and_also(wanted.kept))
    folder = SnapshotFolder(staging.root, said.snapshot_id)
    snapshot = folder.read_snapshot() if said.snapshot_id else None
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
    return snapshot.query, (dataclasses.replace(snapshot, restarts=0), said.pages)


def _owed_snapshots(context: dg.OpExecutionContext, warehouse: Warehouse) -> list[str]:
    """Snapshots that are kept for their failed pages."""
    try:
        last = owed.owed_pages(context.instance, PROFILES_KEY, warehouse)
    except owed.NoRecordError:
        return []
    return [last.snapshot_id] if last.pages and last.snapshot_id else []


def _began(context: dg.OpExecutionContext) -> datetime.datetime | None:
    """When this run's process took it up; a re-execution takes over pages that were fetched before."""
    began = context.instance.get_run_stats(context.run_id).start_time
    return datetime.datetime.fromtimestamp(began, datetime.timezone.utc) if began else None


def _start_over(
    context: dg.OpExecutionContext, snapshot: Snapshot, client: MixpanelClient, staging: StagingResource
) -> Snapshot | None:
    """A new snapshot in place of one whose session is lost; None when page 0 does not come either."""
    context.log.warning("the session is lost: one fresh start from page 0")
    try:
        return snapshots.open_snapshot(client, staging.root, snapshot.query, context.log, context.run_id, restarts=1)
    except MixpanelError as error:
        context.log.error(f"the fresh start failed, so the pages that came before are kept: {error}")
        return None


def _announce(context: dg.OpExecutionContext, snapshot: Snapshot, client: MixpanelClient) -> None:
    reported = "an unknown number of" if snapshot.total is None else snapshot.total
    context.log.info(f"page 0: {reported} profiles on {snapshot.pages} pages of {snapshot.page_size}")
    warning = quota_warning(snapshot.pages, client.queries.standing().limit)
    if warning:
        context.log.warning(warning)


def _orders(snapshot: Snapshot, pages: Sequence[int], on_quota: str) -> Iterator[dg.DynamicOutput[PageOrder]]:
    for page in pages:
        yield dg.DynamicOutput(PageOrder(snapshot, page, on_quota), mapping_key=f"p{page:05d}", output_name="page")
