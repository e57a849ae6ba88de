"""How long Dagster keeps the history of our runs: by age, and by the disk that it takes.

Belongs here: which runs are deleted, and what of them others still read. Does not belong here: staged files
(storage/staging.py), ticks of schedules and sensors (Dagster deletes those itself).

A run of 60 pages leaves 1.6 MB, and Dagster keeps it for ever: 14 GB a year of hourly syncs. Each sync deletes what is
too old, so that it needs no daemon. Runs of other people's jobs and assets in the same instance are not touched, nor
those of another project of ours, nor those of several at once.
"""

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

import dagster as dg
from dagster._core.storage.dagster_run import FINISHED_STATUSES
from dagster._core.storage.event_log import SqliteEventLogStorage

from mixpanel_assets.projects import PROJECT_TAG, THE_ENVIRONMENTS, CopiedProject

# Jobs of the code location; what else a run is of, its assets tell.
_JOB_NAMES = re.compile(r"sync_\w+|retry_failed_\w+_(pages|ranges)|delete_old_history")
# What is still needed is read once for so many runs: 0.3 s where three years of days are loaded.
_FEWEST_AT_ONCE = 24
# A sync that finds a year of history spends seconds on it, not minutes; the next one goes on.
_MOST_AT_ONCE = 200
_MOST_NOTES = 1000
# Kept ones, one for each day of events, are read past: enough for years.
_MOST_RUNS_READ = 5000


@dataclass(frozen=True)
class Retention:
    """How much history stays.

    Attributes:
        days: Runs that are older go; 0: none goes for its age.
        megabytes: The oldest go while the logs of all runs take more disk; 0: none goes for that. Only where the log
            is SQLite's, which keeps a file per run.
    """

    days: int
    megabytes: float


def delete_old_runs(
    instance: dg.DagsterInstance, retention: Retention, project: CopiedProject = THE_ENVIRONMENTS
) -> int:
    """Delete finished runs of a project beyond the retention. Returns how many.

    Of a run that holds the latest materialization of an asset or partition, or the note of days that did not come, only
    the log goes: what is stored, and what is missing, shows as before. That is so with SQLite, whose index of assets is
    a file of its own; with another storage such runs stay as they are.
    """
    chosen = _runs_beyond(instance, retention, project, _now())
    if len(chosen) < _FEWEST_AT_ONCE:
        return 0
    needed = _needed_runs(instance, project)
    for run_id in chosen[:_MOST_AT_ONCE]:
        if run_id not in needed:
            instance.delete_run(run_id)
        for file in _log_files(instance, run_id):
            with suppress(OSError):  # Windows deletes no file that somebody reads; the next sync tries again.
                file.unlink(missing_ok=True)
    return len(chosen[:_MOST_AT_ONCE])


def _runs_beyond(
    instance: dg.DagsterInstance, retention: Retention, project: CopiedProject, now: datetime
) -> list[str]:
    """Our finished runs that are too old, or too much, the oldest first; without those whose log is gone already."""
    logs = _logs(instance)
    excess = sum(logs.values()) - retention.megabytes * 1_000_000 if retention.megabytes else 0
    oldest = now - timedelta(days=retention.days) if retention.days else datetime.min.replace(tzinfo=timezone.utc)
    finished = dg.RunsFilter(statuses=FINISHED_STATUSES, created_before=None if excess > 0 else oldest)
    chosen = []
    for record in instance.get_run_records(finished, limit=_MOST_RUNS_READ, ascending=True):
        if record.create_timestamp >= oldest and excess <= 0:
            break
        run_id = record.dagster_run.run_id
        if _is_of(project, record.dagster_run) and (not logs or run_id in logs):
            chosen.append(run_id)
            excess -= logs.get(run_id, 0)
    return chosen


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _is_of(project: CopiedProject, run: dg.DagsterRun) -> bool:
    if run.asset_selection:
        return all(project.owns(key) for key in run.asset_selection)
    job = run.job_name.removesuffix(project.called(""))
    return run.tags.get(PROJECT_TAG, "") == project.name and _JOB_NAMES.fullmatch(job) is not None


def _needed_runs(instance: dg.DagsterInstance, project: CopiedProject) -> set[str]:
    """Runs that hold the latest materialization of something, or a note of what did not come."""
    keys = instance.get_asset_keys(prefix=project.key_prefix)
    return {run_id for key in keys for run_id in _needed_of(instance, key)}


def _needed_of(instance: dg.DagsterInstance, key: dg.AssetKey) -> Iterable[str]:
    latest = instance.get_latest_materialization_event(key)
    if latest is not None:
        yield latest.run_id
    yield from (record.run_id for record in instance.fetch_observations(key, limit=_MOST_NOTES).records)
    days = instance.event_log_storage.get_latest_storage_id_by_partition(
        key, dg.DagsterEventType.ASSET_MATERIALIZATION
    ).values()
    if days:
        found = dg.AssetRecordsFilter(key, storage_ids=sorted(days))
        yield from (record.run_id for record in instance.fetch_materializations(found, limit=len(days)).records)


def _logs(instance: dg.DagsterInstance) -> dict[str, int]:
    """Bytes of each run's log, by run id; empty where logs are no files."""
    storage = instance.event_log_storage
    if not isinstance(storage, SqliteEventLogStorage):
        return {}
    files = Path(storage.path_for_shard("index")).parent.glob("*.db*")
    sizes: dict[str, int] = {}
    for file in files:
        run_id = file.name.partition(".")[0]
        with suppress(FileNotFoundError):
            sizes[run_id] = sizes.get(run_id, 0) + file.stat().st_size
    sizes.pop("index", None)
    return sizes


def _log_files(instance: dg.DagsterInstance, run_id: str) -> Sequence[Path]:
    storage = instance.event_log_storage
    if not isinstance(storage, SqliteEventLogStorage):
        return ()
    file = Path(storage.path_for_shard(run_id))
    return [file, *file.parent.glob(f"{file.name}-*")]
