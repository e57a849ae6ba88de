"""A stream as Dagster and `mp` see it: its asset, its checks, its jobs, and what it owes. One for each kind of data."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import dagster as dg
from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

from mixpanel_assets.client.client import MixpanelClient
from mixpanel_assets.client.quota import Account
from mixpanel_assets.projects import CopiedProject
from mixpanel_assets.storage.warehouse import Warehouse
from mixpanel_assets.streams.budgets import Budget
from mixpanel_assets.streams.settings import SyncConfig


@dataclass(frozen=True)
class Owed:
    """What a sync left undone, in words, the run that said so last, and what fetching it needs of the hour."""

    what: str
    run_id: str
    needs: Budget


@dataclass(frozen=True, eq=False)
class Stream:
    """One kind of data, of one project.

    Attributes:
        name: Of the table and the asset.
        key: The asset's.
        pool: Limits its requests in flight, over all runs.
        requests: What its requests are called.
        config: The settings of a sync.
        asset: Makes the asset; not at the import, as its partitions may be the environment's.
        checks: The asset's.
        sync_job: Name of the job that the schedule starts.
        sync_description: What it does.
        retry_job: Name of the job that fetches only what failed.
        retry_sensor: Name of the sensor that starts it.
        make_retry_job: Makes it, its steps run by an executor.
        schedule: Name of the hourly schedule.
        schedule_description: What it does, with `{days}` for how many days before today it fetches again.
        request: The run that it starts, by the number of those days.
        owed: What is to be fetched again, or why there is nothing to do.
        project: Whose data.
        of: The same kind of another project.
        missing_pages: Of a stream in pages: those that the last sync lacks, by the instance and the DuckDB file.
        history: The table, and the asset, of what its rows were; None: it has none.
        counted: Of a stream in pages: how many requests of a sync of so many pages count against the hour.
    """

    name: str
    key: dg.AssetKey
    pool: str
    requests: str
    config: type[SyncConfig]
    asset: Callable[[], dg.AssetsDefinition]
    checks: dg.AssetChecksDefinition
    sync_job: str
    sync_description: str
    retry_job: str
    retry_sensor: str
    make_retry_job: Callable[[dg.ExecutorDefinition], dg.JobDefinition | UnresolvedAssetJobDefinition]
    schedule: str
    schedule_description: str
    request: Callable[[int], dg.RunRequest]
    owed: Callable[[dg.DagsterInstance, MixpanelClient], Owed | dg.SkipReason]
    project: CopiedProject
    of: Callable[[CopiedProject], "Stream"]
    missing_pages: Callable[[dg.DagsterInstance, Warehouse], Sequence[int]] | None = None
    counted: Callable[[int, Account], int] | None = None
    history: str | None = None

    @property
    def jobs(self) -> frozenset[str]:
        """What syncs the asset, besides a run of the asset itself."""
        return frozenset({self.sync_job, self.retry_job})
