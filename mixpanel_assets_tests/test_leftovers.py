"""What ended runs left in the staging folder, and when it goes.

Each test names the guard that it was seen red without. Runs that are killed for real are in test_crash.py.
"""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from mixpanel_assets.leftovers import delete_leftovers, ended_runs
from mixpanel_assets.storage.staging import LocalStaging
from mixpanel_assets.streams.events.query import EventsQuery
from mixpanel_assets.streams.events.staged import EventsFolder, RangeResult
from mixpanel_assets.streams.profiles.stream import PROFILE_PAGES
from mixpanel_assets.streams.snapshot.staged import SnapshotFolder

JOB = dg.JobDefinition(graph_def=dg.GraphDefinition("g"), name="x")
DAY_SECONDS = 24 * 3600


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield instance


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "staging"


def run_of(instance: dg.DagsterInstance, parent: str | None = None, *, ended: bool) -> str:
    run = instance.create_run_for_job(JOB, parent_run_id=parent, root_run_id=parent)
    if ended:
        instance.report_run_failed(run)
    return run.run_id


def snapshot_of(root: Path, name: str, *runs: str) -> Path:
    folder = SnapshotFolder(LocalStaging(root), PROFILE_PAGES, name)
    for run in runs:
        folder.claim(run)
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.rows_file(1).write_text("{}\n")
    (folder.path / "page-00002.abcdef01.partial").write_text("{")
    return folder.path


def folder_of(root: Path, kind: str, run: str) -> Path:
    folder = root / kind / run
    (folder / "mixpanel__profiles.metadata").mkdir(parents=True)
    return folder


def left_alone_for(path: Path, seconds: float) -> None:
    past = time.time() - seconds
    os.utime(path, (past, past))


def test_snapshots_of_ended_runs_go_and_those_of_runs_under_way_and_owed_ones_stay(
    instance: dg.DagsterInstance, root: Path
) -> None:
    """Red without the claims, without `owed`, and when one of two claimants is enough."""
    ended, under_way = run_of(instance, ended=True), run_of(instance, ended=False)
    gone = snapshot_of(root, "gone", ended)
    stay = [
        snapshot_of(root, "under-way", under_way),
        snapshot_of(root, "taken-up", ended, under_way),
        snapshot_of(root, "owed", ended),
        snapshot_of(root, "just-begun"),
        snapshot_of(root, "of-another-instance", "unknown"),
    ]
    delete_leftovers(instance, LocalStaging(root))
    assert gone.exists(), "only a sync of profiles knows what is owed"
    delete_leftovers(instance, LocalStaging(root), "profiles", ["owed"])
    assert not gone.exists()
    assert all(folder.exists() for folder in stay)


def test_what_a_run_under_way_executes_again_stays(instance: dg.DagsterInstance, root: Path) -> None:
    """Red without the parents of runs under way, and their parents."""
    first = run_of(instance, ended=True)
    second = run_of(instance, first, ended=True)
    third = run_of(instance, second, ended=False)
    snapshot, handles = snapshot_of(root, "s", first), folder_of(root, "handles", first)
    assert ended_runs(instance, [first, second, third]) == []
    delete_leftovers(instance, LocalStaging(root), "profiles")
    assert snapshot.exists()
    assert handles.exists()
    run = instance.get_run_by_id(third)
    assert run is not None
    instance.report_run_failed(run)
    delete_leftovers(instance, LocalStaging(root), "profiles")
    assert not snapshot.exists()
    assert not handles.exists()


def test_handles_stay_as_long_as_their_run_can_be_executed_again(instance: dg.DagsterInstance, root: Path) -> None:
    """Red when those of a failed run go while its staged files stay, and when those of a run under way go."""
    done, fetched, under_way = (run_of(instance, ended=ended) for ended in (True, True, False))
    folder_of(root, "events", fetched)
    handles = {run: folder_of(root, "handles", run) for run in (done, fetched, under_way)}
    delete_leftovers(instance, LocalStaging(root))
    assert [handles[run].exists() for run in (done, fetched, under_way)] == [False, True, True]


def test_what_nobody_knows_goes_after_a_day_without_a_change(instance: dg.DagsterInstance, root: Path) -> None:
    """Red when it goes at once (another instance's run may be under way), and when it stays for a week."""
    folders = [
        snapshot_of(root, "s", "unknown"),
        snapshot_of(root, "nobody's"),
        folder_of(root, "events", "unknown"),
        folder_of(root, "handles", "unknown"),
    ]
    probe = root / "profiles" / "writable-12345678"
    probe.write_text("?")
    for path in (*folders, probe):
        left_alone_for(path, DAY_SECONDS - 60)
    delete_leftovers(instance, LocalStaging(root), "profiles")
    assert all(path.exists() for path in (*folders, probe))
    for path in (*folders, probe):
        left_alone_for(path, DAY_SECONDS + 60)
    delete_leftovers(instance, LocalStaging(root), "profiles")
    assert not any(path.exists() for path in (*folders, probe))


def test_an_ended_run_keeps_only_whole_ranges_that_can_be_taken_over(root: Path) -> None:
    """Red when what is cut stays, and when the folder stays with nothing in it."""
    folder = EventsFolder(LocalStaging(root), "run")
    kept = RangeResult("2026-01-01", "2026-01-02", "run", EventsQuery())
    with folder.new_file() as (file, stream):
        stream.write(b"events")
        stream.close()
        kept = folder.sign(folder.place(file, kept, ()))
    (folder.path / "0123.partial").write_bytes(b"cut")
    (folder.path / "2026-01-03_2026-01-04.parquet").write_bytes(b"without a manifest")
    folder.keep_only([kept])
    assert sorted(file.suffix for file in folder.path.iterdir()) == [".json", ".parquet"]
    assert folder.results() == [kept]
    folder.keep_only([])
    assert not folder.path.exists()
