"""Which run of an asset is under way, so that a schedule or sensor does not start another beside it."""

from collections.abc import Collection

import dagster as dg
from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES

from mixpanel_assets.executor.run_locks import fail_dead_runs

# Not NOT_STARTED: a run that was made and never launched stays so for ever.
_UNDER_WAY = [*IN_PROGRESS_RUN_STATUSES, dg.DagsterRunStatus.QUEUED]


def active_run(instance: dg.DagsterInstance, asset: dg.AssetKey, jobs: Collection[str]) -> str | None:
    """The id of a run that is queued or under way for an asset: by its selection, or because it is one of `jobs`.

    Runs whose process died are reported failed first: one that only seems to run must not stop a schedule for ever.
    """
    fail_dead_runs(instance)
    for run in instance.get_runs(dg.RunsFilter(statuses=_UNDER_WAY)):
        if is_sync_of(run, asset, jobs):
            return run.run_id
    return None


def is_sync_of(run: dg.DagsterRun, asset: dg.AssetKey, jobs: Collection[str]) -> bool:
    """Whether a run is for an asset: by its selection, or because it is one of `jobs`."""
    return run.job_name in jobs or asset in (run.asset_selection or ())
