"""Runs of several hosts on one Postgres: who dies blocks nobody, and nobody who lives is taken for dead."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from mixpanel_assets.errors import InstanceError
from mixpanel_assets.executor import lock_sessions
from mixpanel_assets.executor.lock_sessions import LockSessions
from mixpanel_assets.executor.run_locks import fail_dead_runs
from mixpanel_assets_tests.executor import toy_runs
from mixpanel_assets_tests.executor.running import config, held, wait_until, words
from mixpanel_assets_tests.executor.toy_runs import LIMIT, POOL
from mixpanel_assets_tests.hosts import Host
from mixpanel_assets_tests.postgres import Database, needs_postgres, server

pytestmark = [needs_postgres, pytest.mark.process]

Run = tuple[dg.DagsterInstance, str]
JOB = (sys.executable, "-m", "mixpanel_assets_tests.executor.toy_runs", "pages_job")


def command(host: Host, pages: int, seconds: float) -> list[str]:
    return [*JOB, str(host.folder), json.dumps(config(pages, seconds))]


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same in a fifth of the time."""
    for name in ("NOTE_EVERY_SECONDS", "LOST_AFTER_SECONDS", "SURE_AFTER_SECONDS", "DEAD_AFTER_SECONDS"):
        monkeypatch.setattr(lock_sessions, name, getattr(lock_sessions, name) / 5)
    monkeypatch.setattr(lock_sessions, "_TRY_AGAIN_SECONDS", 0.1)


def test_a_killed_host_blocks_no_other_and_one_that_lives_is_left_alone(
    tmp_path: Path, database: Database, lines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red with lock files in each DAGSTER_HOME: the third host waits without end."""
    killed, living, next_ = (Host.make(tmp_path / name, database) for name in ("killed", "living", "next"))
    with ExitStack() as ended, living.instance(monkeypatch) as instance:
        dead = killed.start(command(killed, LIMIT - 1, 600))
        ended.callback(dead.wait)
        ended.callback(dead.kill)
        wait_until(lambda: len(words(lines, "begin")) == LIMIT - 1, "the pages of the host that will be killed")
        alive = living.start(command(living, 1, 6))
        ended.callback(alive.wait)
        ended.callback(alive.kill)
        wait_until(lambda: len(words(lines, "begin")) == LIMIT, "the first page of the host that lives")
        # It stands still for longer than anybody's patience, but has its lock.
        alive.send_signal(signal.SIGSTOP)
        dead.kill()
        began = time.monotonic()
        other = next_.start(command(next_, 1, 0.1))
        assert other.wait(40) == 0
        assert time.monotonic() - began < lock_sessions.DEAD_AFTER_SECONDS + 10
        runs = {record.dagster_run.run_id: record.dagster_run.status for record in instance.get_run_records()}
        assert sorted(status.value for status in runs.values()) == ["FAILURE", "STARTED", "SUCCESS"]
        alive.send_signal(signal.SIGCONT)
        assert alive.wait(60) == 0
        assert fail_dead_runs(instance) == []
        assert held(instance) == []
        assert database.rows("select * from mixpanel_assets_runs") == []


@dataclass(frozen=True)
class Network:
    """A network of one host, which is cut from one moment to the next: no packet says so."""

    name: str
    here: str = "10.177.0.1"
    there: str = "10.177.0.2"
    whole: str = "10.177.0.0/24"

    def inside(self, *command: str) -> list[str]:
        """The command there."""
        return ["ip", "netns", "exec", self.name, *command]

    def cut(self) -> None:
        """Let nothing through."""
        subprocess.run(self.inside("ip", "link", "set", "there", "down"), check=True)


@pytest.fixture
def network() -> Iterator[Network]:
    made = Network(f"mixpanel{os.getpid()}")
    try:
        subprocess.run(["ip", "netns", "add", made.name], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no network can be made here: {error}")
    outside = f"mp{os.getpid()}"[:15]
    try:
        for command in (
            ["ip", "link", "add", outside, "type", "veth", "peer", "name", "there", "netns", made.name],
            ["ip", "addr", "add", f"{made.here}/24", "dev", outside],
            ["ip", "link", "set", outside, "up"],
            made.inside("ip", "addr", "add", f"{made.there}/24", "dev", "there"),
            made.inside("ip", "link", "set", "there", "up"),
            made.inside("ip", "link", "set", "lo", "up"),
        ):
            subprocess.run(command, check=True)
        yield made
    finally:
        subprocess.run(["ip", "netns", "del", made.name], check=True)


def test_a_host_that_is_cut_off_stops_its_requests_before_others_take_its_slots(
    tmp_path: Path, network: Network, lines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red without _watch: its pages end after those of the next host have begun. Red without the keepalives of the
    server: it holds the lock for two hours."""
    with ExitStack() as ended:
        postgres = ended.enter_context(server("fsync=off", "listen_addresses=*"))
        postgres.let_in(network.whole)
        database = postgres.new_database()
        cut_off, next_ = (Host.make(tmp_path / name, database) for name in ("cut_off", "next"))
        instance = ended.enter_context(next_.instance(monkeypatch))
        elsewhere = cut_off.start(network.inside(*command(cut_off, LIMIT, 600)), {"DAGSTER_PG_HOST": network.here})
        ended.callback(elsewhere.wait)
        ended.callback(elsewhere.kill)
        wait_until(lambda: len(words(lines, "begin")) == LIMIT, "its pages")
        network.cut()
        assert next_.start(command(next_, 1, 0.1)).wait(60) == 0
        of_next = [line for line in toy_runs.journal(lines) if line["word"] == "begin"][LIMIT:]
        stopped = [line["at"] for line in words(lines, "end") if line["run"] != of_next[0]["run"]]
        assert len(stopped) == LIMIT
        assert max(stopped) < of_next[0]["at"] - 1
        statuses = sorted(record.dagster_run.status.value for record in instance.get_run_records())
        assert statuses == ["FAILURE", "SUCCESS"]


@pytest.fixture
def run_id(database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """A run that shows as running and holds a slot."""
    with Host.make(tmp_path / "host", database).instance(monkeypatch) as instance:
        run = instance.create_run_for_job(toy_runs.pages_job)
        instance.report_dagster_event(dg.DagsterEvent("PIPELINE_START", "pages_job"), run.run_id)
        instance.event_log_storage.set_concurrency_slots(POOL, LIMIT)
        instance.event_log_storage.claim_concurrency_slot(POOL, run.run_id, "page[0]")
        yield instance, run.run_id


def locks(instance: dg.DagsterInstance) -> LockSessions:
    return LockSessions.of(instance.event_log_storage)


def sessions(database: Database, doing: str = "pid") -> list[Any]:
    return database.rows(f"select {doing} from pg_locks where locktype = 'advisory' and objsubid = 1")


@pytest.mark.usefixtures("quick")
def test_a_run_whose_connection_is_cut_takes_its_lock_anew(database: Database, run_id: Run) -> None:
    """Red without _locked in _write_notes: the run is failed, and its slot freed, while its request is under way."""
    instance, run = run_id
    stop = threading.Event()
    with locks(instance).alive(run, stop) as make_sure:
        [(before,)] = sessions(database)
        assert sessions(database, "pg_terminate_backend(pid)") == [(True,)]
        until = time.monotonic() + 2 * lock_sessions.DEAD_AFTER_SECONDS
        while time.monotonic() < until:
            assert fail_dead_runs(instance) == []
            time.sleep(0.1)
        make_sure()
        assert sessions(database) not in ([], [(before,)])
        assert held(instance) == ["page[0]"]
        assert not stop.is_set()
    assert database.rows("select * from mixpanel_assets_runs") == []


@pytest.mark.usefixtures("quick")
def test_a_run_that_others_may_take_for_dead_has_stopped_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red without _watch: it goes on while the next one fetches and loads."""
    with ExitStack() as ended:
        away = ended.enter_context(server("fsync=off"))
        instance = ended.enter_context(Host.make(tmp_path / "host", away.new_database()).instance(monkeypatch))
        run = instance.create_run_for_job(toy_runs.pages_job).run_id
        stop = threading.Event()
        make_sure = ended.enter_context(locks(instance).alive(run, stop))
        make_sure()
        away.stop()
        assert stop.wait(lock_sessions.DEAD_AFTER_SECONDS - 0.2)
        with pytest.raises(InstanceError, match="taken it for dead"):
            make_sure()
        away.start()
        wait_until(lambda: fail_dead_runs(instance), "the run's end")


@pytest.mark.usefixtures("quick")
def test_a_run_that_was_failed_by_others_ends(database: Database, run_id: Run) -> None:
    instance, run = run_id
    stop = threading.Event()
    with locks(instance).alive(run, stop) as make_sure:
        database.rows("delete from mixpanel_assets_runs")
        assert stop.wait(5)
        with pytest.raises(InstanceError):
            make_sure()


@pytest.mark.usefixtures("quick")
def test_two_processes_do_not_execute_one_run(run_id: Run) -> None:
    instance, run = run_id
    with ExitStack() as held_here:
        held_here.enter_context(locks(instance).alive(run, threading.Event()))
        with pytest.raises(InstanceError, match="another process"):
            held_here.enter_context(locks(instance).alive(run, threading.Event()))
