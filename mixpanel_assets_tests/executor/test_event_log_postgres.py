"""A run's events on their way to Postgres, and a server that is started again meanwhile."""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import dagster as dg
import pytest

from mixpanel_assets_tests.executor import toy_runs
from mixpanel_assets_tests.executor.running import config, held, run, wait_until, words
from mixpanel_assets_tests.hosts import Host
from mixpanel_assets_tests.postgres import Database, needs_postgres, server

pytestmark = [needs_postgres, pytest.mark.process]

JOB = (sys.executable, "-m", "mixpanel_assets_tests.executor.toy_runs", "pages_job")


@pytest.fixture
def instance(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    with Host.make(tmp_path / "host", database).instance(monkeypatch) as instance:
        yield instance


def assert_whole(instance: dg.DagsterInstance, run_id: str, pages: int) -> None:
    """Every step of the run is in the log from its start to its success, once and in order."""
    entries = instance.all_logs(run_id)
    for page in range(pages):
        of_page = [entry.dagster_event_type for entry in entries if entry.step_key == f"page[p{page:03d}]"]
        own = [kind for kind in of_page if kind in (dg.DagsterEventType.STEP_START, dg.DagsterEventType.STEP_SUCCESS)]
        assert own == [dg.DagsterEventType.STEP_START, dg.DagsterEventType.STEP_SUCCESS]


def test_events_are_stored_in_order_and_once_with_few_connections_and_commits(
    instance: dg.DagsterInstance, database: Database, lines: Path
) -> None:
    """Red without PostgresRunLog: 20 connections and 55 commits a page."""
    used = "select sessions, xact_commit from pg_stat_database where datname = current_database()"
    result = run(toy_runs.pages_job, instance, run_config=config(20))
    time.sleep(1.2)  # The server's own pause between two notes of it.
    [(connections, commits)] = database.rows(used)
    assert_whole(instance, result.run_id, 20)
    stored = [entry.dagster_event for entry in instance.all_logs(result.run_id) if entry.step_key]
    assert [event.event_type for event in stored if event and event.step_key == "collect"] == [
        event.event_type for event in result.all_events if event.step_key == "collect"
    ]
    assert words(lines, "collect")[0]["successes_on_disk"] == 21
    assert connections < 5 * 20
    assert commits < 25 * 20


def test_what_is_stored_is_found_at_once(instance: dg.DagsterInstance) -> None:
    """Red when a reader does not write what waits."""
    assert run(toy_runs.reads_what_it_stored_job, instance).success


def test_a_server_that_is_started_again_ends_no_run(
    tmp_path: Path, lines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red without pool_pre_ping: a connection from before fails the run. Its events wait meanwhile."""
    pages = 12
    with ExitStack() as ended:
        away = ended.enter_context(server("fsync=off"))
        host = Host.make(tmp_path / "host", away.new_database())
        instance = ended.enter_context(host.instance(monkeypatch))
        running = host.start([*JOB, str(host.folder), json.dumps(config(pages, 1.0))])
        ended.callback(running.wait)
        ended.callback(running.kill)
        wait_until(lambda: len(words(lines, "begin")) >= 3, "the first pages")
        away.stop()
        time.sleep(1.5)
        away.start()
        assert running.wait(60) == 0, (host.folder / "output").read_text()[-2000:]
        [record] = instance.get_run_records()
        assert record.dagster_run.status == dg.DagsterRunStatus.SUCCESS
        assert_whole(instance, record.dagster_run.run_id, pages)
        assert len(words(lines, "begin")) == pages
        assert held(instance) == []
