"""Dagster's history of syncs does not grow for ever, and what is stored or owed shows as before."""

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import dagster as dg
import pytest

from mixpanel_assets import history
from mixpanel_assets.definitions import build_defs
from mixpanel_assets.history import Retention, delete_old_runs
from mixpanel_assets.jobs import HISTORY_JOB
from mixpanel_assets.sandbox.faults import Fault
from mixpanel_assets.streams.events.assets import EVENTS_KEY
from mixpanel_assets.streams.events.reports import owed_days
from mixpanel_assets_tests.events_pipeline import FIRST, EventsPipeline, events_pipeline

_LATER = datetime.now(timezone.utc) + timedelta(days=31)


@pytest.fixture
def events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EventsPipeline]:
    monkeypatch.setattr(history, "_FEWEST_AT_ONCE", 1)
    with events_pipeline(tmp_path, monkeypatch) as pipeline:
        yield pipeline


def _logs(events: EventsPipeline) -> set[str]:
    return {file.stem for file in (events.home / "history" / "runs").glob("*.db")} - {"index"}


@dg.op
def _of_somebody_else() -> None: ...


def _foreign_run(instance: dg.DagsterInstance) -> str:
    job = dg.GraphDefinition(name="foreign", node_defs=[_of_somebody_else]).to_job()
    return instance.create_run_for_job(job, status=dg.DagsterRunStatus.SUCCESS).run_id


def test_old_runs_go_and_what_they_stored_shows_as_before(
    events: EventsPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red when runs that are still needed are deleted, when logs stay behind, or when other people's runs go."""
    events.sync(FIRST)
    latest = events.sync(FIRST).run_id
    events.sandbox.faults = [Fault("export", "status:500", from_date="2026-01-02", times=None)]
    owing = events.sync("2026-01-02").run_id
    foreign = _foreign_run(events.instance)
    assert delete_old_runs(events.instance, Retention(days=30, megabytes=0)) == 0
    monkeypatch.setattr(history, "_now", lambda: _LATER)
    assert delete_old_runs(events.instance, Retention(days=30, megabytes=0)) == 3
    assert {run.run_id for run in events.instance.get_runs()} == {latest, owing, foreign}
    assert not _logs(events)
    assert events.materialized() == {FIRST}
    assert list(owed_days(events.instance, EVENTS_KEY)) == ["2026-01-02"]


def test_the_nightly_job_deletes_old_runs_and_what_they_left(
    events: EventsPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red when only syncs delete: where none runs, all stays. Its own runs go too."""
    old = events.sync(FIRST).run_id
    latest = events.sync(FIRST).run_id
    left = events.home / "staging" / "handles" / old
    left.mkdir(parents=True)
    job = build_defs(executor=dg.in_process_executor).resolve_job_def(HISTORY_JOB)
    first = job.execute_in_process(instance=events.instance).run_id
    assert not left.exists()
    assert {run.run_id for run in events.instance.get_runs()} == {old, latest, first}
    monkeypatch.setattr(history, "_now", lambda: _LATER)
    assert job.execute_in_process(instance=events.instance).success
    kept = {run.run_id for run in events.instance.get_runs()}
    assert old not in kept
    assert first not in kept
    assert latest in kept


def test_the_oldest_runs_go_when_logs_take_too_much(events: EventsPipeline) -> None:
    """Red when only the age counts."""
    runs = [events.sync(FIRST).run_id for _ in range(4)]
    megabytes = sum(file.stat().st_size for file in (events.home / "history" / "runs").glob("*-*.db*")) / 1e6
    assert delete_old_runs(events.instance, Retention(days=30, megabytes=megabytes + 0.01)) == 0
    assert delete_old_runs(events.instance, Retention(days=30, megabytes=0.6 * megabytes)) == 2
    assert _logs(events) == {*runs[2:]}
    assert events.materialized() == {FIRST}


def test_a_sync_deletes_what_is_beyond(events: EventsPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Red when the plan does not: nobody else runs where there is no daemon."""
    events.sync(FIRST)
    monkeypatch.setattr(history, "_now", lambda: _LATER)
    last = events.sync(FIRST).run_id
    assert _logs(events) == {last}
