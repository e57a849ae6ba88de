"""A stream in pages, as a stream: its asset with its jobs and checks, all named after it."""

from dataclasses import dataclass, replace

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from mixpanel_assets.client.client import MixpanelClient
from mixpanel_assets.client.quota import Account
from mixpanel_assets.projects import THE_ENVIRONMENTS, CopiedProject
from mixpanel_assets.storage.warehouse import Warehouse
from mixpanel_assets.streams.budgets import budget
from mixpanel_assets.streams.snapshot.checks import snapshot_checks
from mixpanel_assets.streams.snapshot.graph import snapshot_asset
from mixpanel_assets.streams.snapshot.owed import owed_pages
from mixpanel_assets.streams.snapshot.reports import last_sync
from mixpanel_assets.streams.snapshot.settings import SnapshotConfig
from mixpanel_assets.streams.snapshot.stream import SnapshotStream
from mixpanel_assets.streams.stream import Owed, Stream


@dataclass(frozen=True)
class _Parts:
    """What belongs to a stream in pages, by its names in a project."""

    stream: SnapshotStream
    config: type[SnapshotConfig]
    pool: str
    singular: str
    description: str
    project: CopiedProject

    @property
    def key(self) -> dg.AssetKey:
        return self.project.key(self.stream.name)

    @property
    def sync_job(self) -> str:
        return self.project.called(f"sync_{self.stream.name}")

    @property
    def retry_job(self) -> str:
        return self.project.called(f"retry_failed_{self.singular}_pages")

    @property
    def schedule(self) -> str:
        return self.project.called(f"hourly_{self.stream.name}_schedule")

    def of(self, project: CopiedProject) -> Stream:
        return replace(self, project=project).as_stream()

    def as_stream(self) -> Stream:
        stream, key, project = self.stream, self.key, self.project
        asset = snapshot_asset(stream, self.config, pool=self.pool, description=self.description, project=project)
        return Stream(
            name=stream.name,
            key=key,
            pool=project.pool(self.pool),
            requests="pages",
            config=self.config,
            asset=lambda: asset,
            checks=snapshot_checks(stream, project, self.retry_job),
            sync_job=self.sync_job,
            sync_description=f"Fetch all {stream.name}; what {self.schedule} starts.",
            retry_job=self.retry_job,
            retry_sensor=project.called(f"retry_failed_{self.singular}_pages_sensor"),
            make_retry_job=self.make_retry_job,
            schedule=self.schedule,
            schedule_description=f"Syncs {key.to_user_string()} every hour, unless a sync of it is under way.",
            request=lambda lookback_days: dg.RunRequest(),
            owed=self.owed,
            project=project,
            missing_pages=self.missing_pages,
            counted=self.counted,
            history=stream.history_table,
            of=self.of,
        )

    def make_retry_job(self, executor: dg.ExecutorDefinition) -> UnresolvedAssetJobDefinition:
        return dg.define_asset_job(
            self.retry_job,
            selection=dg.AssetSelection.assets(self.key),
            config=dg.RunConfig(ops={self.key.to_python_identifier(): self.config(retry_failed_pages=True)}),
            executor_def=executor,
            tags=self.project.tags,
            description=(
                f"Fetch only the {self.singular} pages that failed last time, and publish the complete snapshot."
            ),
        )

    def owed(self, instance: dg.DagsterInstance, client: MixpanelClient) -> Owed | dg.SkipReason:
        event = instance.get_latest_materialization_event(self.key)
        if event is None or event.asset_materialization is None:
            return dg.SkipReason("no sync yet")
        pages = last_sync(self.stream, event.asset_materialization.metadata).pages
        if not pages:
            return dg.SkipReason("the last sync has no failed pages")
        needs = budget(client.queries, len(pages), session_pages=self.stream.part is None)
        return Owed(f"{len(pages)} pages", event.run_id, needs)

    def missing_pages(self, instance: dg.DagsterInstance, warehouse: Warehouse) -> list[int]:
        return owed_pages(instance, self.stream, self.key, warehouse).pages

    def counted(self, pages: int, queries: Account) -> int:
        if not self.stream.is_counted:
            return 0
        further = budget(queries, pages - 1, session_pages=self.stream.part is None)
        return self.stream.asks_first_page + further.counted_requests


def as_stream(
    stream: SnapshotStream,
    config: type[SnapshotConfig],
    *,
    pool: str,
    singular: str,
    description: str,
    project: CopiedProject = THE_ENVIRONMENTS,
) -> Stream:
    """The stream that has this asset.

    Args:
        stream: What is fetched.
        config: Its settings.
        pool: Limits the requests in flight over all runs.
        singular: One of its rows, as in `retry_failed_profile_pages`.
        description: Of the asset, for the catalog.
        project: Whose data.
    """
    return _Parts(stream, config, pool, singular, description, project).as_stream()
