"""What runs that are over left in the staging folder, and nobody will take up: it holds personal data, and goes.

Belongs here: which runs are over, and which folders they leave. Does not belong here: what the files are
(streams/*/staged.py), chunks that a later run takes over (streams/events/chunking.py), Dagster's history (history.py).

A run that failed or was killed may be executed again from its failure; that is done at once or not at all, so its files
wait for the next run of the same kind. A snapshot whose failed pages are owed stays as long as they are.
"""

import time
from collections.abc import Collection, Iterable

import dagster as dg
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES

from mixpanel_assets.executor.run_locks import fail_dead_runs
from mixpanel_assets.storage.staging import HANDLES_FOLDER, StagedFolder, Staging

# A run of another instance that uses the same folder: nothing tells whether it is over.
_UNKNOWN_IDLE_SECONDS = 24 * 3600


def ended_runs(instance: dg.DagsterInstance, run_ids: Collection[str]) -> list[str]:
    """Those of the runs that are over, the latest first; none that a run under way executes again."""
    return _Runs(instance, run_ids).ended


def delete_leftovers(
    instance: dg.DagsterInstance, staging: Staging, stream: str | None = None, owed: Collection[str] = ()
) -> None:
    """Delete what is left of runs that are over.

    Args:
        instance: Knows the runs.
        staging: Where the files are.
        stream: Whose snapshots are looked at, in a sync of a stream in pages; None: no snapshot goes.
        owed: Its snapshots that failed pages are owed to.
    """
    folders = staging.sweep()
    events = [folder for folder in folders if folder.stream == "events"]
    handles = [folder for folder in folders if folder.stream == HANDLES_FOLDER]
    claims = {folder: staging.claimants(folder.key) for folder in folders if folder not in (*events, *handles)}
    claimed_by = {run_id for claimed in claims.values() for run_id in claimed}
    runs = _Runs(instance, {*claimed_by, *(folder.name for folder in (*events, *handles))})
    for folder, claimed in list(claims.items()):
        if folder.stream == stream and folder.name not in owed and runs.have_left(folder, claimed):
            staging.delete_folder(folder.key)
            del claims[folder]
    for folder in list(events):
        if folder.name not in runs.known and runs.have_left(folder, [folder.name]):
            staging.delete_folder(folder.key)
            events.remove(folder)
    # With its files a run can be executed again, and only with them.
    staged = {folder.name for folder in events}.union(*claims.values())
    for folder in handles:
        if folder.name not in staged and runs.have_left(folder, [folder.name]):
            staging.delete_folder(folder.key)


class _Runs:
    """What an instance knows of some runs."""

    def __init__(self, instance: dg.DagsterInstance, run_ids: Collection[str]) -> None:
        self.ended: list[str] = []
        self.known: set[str] = set()
        if not run_ids:
            return
        fail_dead_runs(instance)
        used = _used_by_runs_under_way(instance)
        runs = instance.get_runs(dg.RunsFilter(run_ids=sorted(run_ids)))
        self.known = {run.run_id for run in runs}
        self.ended = [run.run_id for run in runs if run.is_finished and run.run_id not in used]

    def have_left(self, folder: StagedFolder, claimed: Iterable[str]) -> bool:
        """Whether all runs that work with a folder are over."""
        unknown = [run_id for run_id in claimed if run_id not in self.ended]
        if any(run_id in self.known for run_id in unknown):
            return False
        return (bool(claimed) and not unknown) or time.time() - folder.touched_at > _UNKNOWN_IDLE_SECONDS


def _used_by_runs_under_way(instance: dg.DagsterInstance) -> set[str]:
    """Runs that are not over, and those that they execute again."""
    used: set[str] = set()
    for under_way in instance.get_runs(dg.RunsFilter(statuses=NOT_FINISHED_STATUSES)):
        run: dg.DagsterRun | None = under_way
        while run is not None and run.run_id not in used:
            used.add(run.run_id)
            run = instance.get_run_by_id(run.parent_run_id) if run.parent_run_id else None
    return used
