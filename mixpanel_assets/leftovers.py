"""What runs that are over left in the staging folder, and nobody will take up: it holds personal data, and goes.

Belongs here: which runs are over, and which folders they leave. Does not belong here: what the files are
(streams/*/staged.py), chunks that a later run takes over (streams/events/chunking.py), Dagster's history (history.py).

A run that failed or was killed may be executed again from its failure; that is done at once or not at all, so its files
wait for the next run of the same kind. A snapshot whose failed pages are owed stays as long as they are.
"""

import shutil
import time
from collections.abc import Collection, Iterable
from pathlib import Path

import dagster as dg
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES

from mixpanel_assets.executor.run_locks import fail_dead_runs
from mixpanel_assets.storage.staging import claimants, staged_folders, sweep

# A run of another instance that uses the same folder: nothing tells whether it is over.
_UNKNOWN_IDLE_SECONDS = 24 * 3600


def ended_runs(instance: dg.DagsterInstance, run_ids: Collection[str]) -> list[str]:
    """Those of the runs that are over, the latest first; none that a run under way executes again."""
    return _Runs(instance, run_ids).ended


def delete_leftovers(
    instance: dg.DagsterInstance, root: Path, stream: str | None = None, owed: Collection[str] = ()
) -> None:
    """Delete what is left of runs that are over.

    Args:
        instance: Knows the runs.
        root: The staging folder.
        stream: Whose snapshots are looked at, in a sync of a stream in pages; None: no snapshot goes.
        owed: Its snapshots that failed pages are owed to.
    """
    sweep(root)
    events, handles = list(root.glob("events/*")), list(root.glob("handles/*"))
    snapshots = {folder: claimants(folder) for folder in _snapshots(root)}
    claimed_by = {run_id for claimed in snapshots.values() for run_id in claimed}
    runs = _Runs(instance, {*claimed_by, *(folder.name for folder in (*events, *handles))})
    for folder, claimed in list(snapshots.items()):
        if folder.parent.name == stream and folder.name not in owed and runs.have_left(folder, claimed):
            _delete(folder)
            del snapshots[folder]
    for folder in events:
        if folder.name not in runs.known and runs.have_left(folder, [folder.name]):
            _delete(folder)
    # With its files a run can be executed again, and only with them.
    staged = {folder.name for folder in events if folder.exists()}.union(*snapshots.values())
    for folder in handles:
        if folder.name not in staged and runs.have_left(folder, [folder.name]):
            _delete(folder)


def _snapshots(root: Path) -> list[Path]:
    """The folders of snapshots, of all streams in pages."""
    return [folder for folder in staged_folders(root) if folder.parent.name not in ("events", "handles")]


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

    def have_left(self, folder: Path, claimed: Iterable[str]) -> bool:
        """Whether all runs that work with a folder are over."""
        unknown = [run_id for run_id in claimed if run_id not in self.ended]
        if any(run_id in self.known for run_id in unknown):
            return False
        return (bool(claimed) and not unknown) or _idle_seconds(folder) > _UNKNOWN_IDLE_SECONDS


def _used_by_runs_under_way(instance: dg.DagsterInstance) -> set[str]:
    """Runs that are not over, and those that they execute again."""
    used: set[str] = set()
    for under_way in instance.get_runs(dg.RunsFilter(statuses=NOT_FINISHED_STATUSES)):
        run: dg.DagsterRun | None = under_way
        while run is not None and run.run_id not in used:
            used.add(run.run_id)
            run = instance.get_run_by_id(run.parent_run_id) if run.parent_run_id else None
    return used


def _idle_seconds(folder: Path) -> float:
    try:
        return time.time() - folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _delete(path: Path) -> None:
    """What Windows does not let go now, the next run deletes."""
    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
