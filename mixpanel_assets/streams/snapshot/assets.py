"""A stream in pages, as a stream: its asset with its jobs and checks, all named after it."""

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
    key = project.key(stream.name)
    asset = snapshot_asset(stream, config, pool=pool, description=description, project=project)
    sync_job, retry_job = project.called(f"sync_{stream.name}"), project.called(f"retry_failed_{singular}_pages")
    schedule = project.called(f"hourly_{stream.name}_schedule")

    def make_retry_job(executor: dg.ExecutorDefinition) -> UnresolvedAssetJobDefinition:
        return dg.define_asset_job(
            retry_job,
            selection=dg.AssetSelection.assets(key),
            config=dg.RunConfig(ops={key.to_python_identifier(): config(retry_failed_pages=True)}),
            executor_def=executor,
            tags=project.tags,
            description=f"Fetch only the {singular} pages that failed last time, and publish the complete snapshot.",
        )

    def owed(instance: dg.DagsterInstance, client: MixpanelClient) -> Owed | dg.SkipReason:
        event = instance.get_latest_materialization_event(key)
        if event is None or event.asset_materialization is None:
            return dg.SkipReason("no sync yet")
        pages = last_sync(stream, event.asset_materialization.metadata).pages
        if not pages:
            return dg.SkipReason("the last sync has no failed pages")
        needs = budget(client.queries, len(pages), session_pages=stream.part is None)
        return Owed(f"{len(pages)} pages", event.run_id, needs)

    def missing_pages(instance: dg.DagsterInstance, warehouse: Warehouse) -> list[int]:
        return owed_pages(instance, stream, key, warehouse).pages

    def counted(pages: int, queries: Account) -> int:
        if not stream.is_counted:
            return 0
        further = budget(queries, pages - 1, session_pages=stream.part is None)
        return 1 + further.counted_requests

    return Stream(
        name=stream.name,
        key=key,
        pool=project.called(pool),
        requests="pages",
        config=config,
        asset=lambda: asset,
        checks=snapshot_checks(stream, project, retry_job),
        sync_job=sync_job,
        sync_description=f"Fetch all {stream.name}; what {schedule} starts.",
        retry_job=retry_job,
        retry_sensor=project.called(f"retry_failed_{singular}_pages_sensor"),
        make_retry_job=make_retry_job,
        schedule=schedule,
        schedule_description=f"Syncs {key.to_user_string()} every hour, unless a sync of it is under way.",
        request=lambda lookback_days: dg.RunRequest(),
        owed=owed,
        project=project,
        missing_pages=missing_pages,
        counted=counted,
        of=lambda other: as_stream(
            stream, config, pool=pool, singular=singular, description=description, project=other
        ),
    )
