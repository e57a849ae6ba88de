"""What a sync lacks is owed until it comes, whether or not the history of Dagster was kept."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from mixpanel_assets.cli.main import run
from mixpanel_assets.sandbox import Fault, Population, Sandbox

pytestmark = pytest.mark.process

_MATERIALIZE = [sys.executable, "-m", "dagster", "asset", "materialize", "-m", "mixpanel_assets.definitions"]


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """A Mixpanel of five pages, and an empty current folder without DAGSTER_HOME, as in CI."""
    with Sandbox(Population(profiles=45, seed=2, events_per_day=10), page_size=10) as served:
        for name, value in served.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(tmp_path)
        yield served


def _materialize(*options: str) -> int:
    return subprocess.run([*_MATERIALIZE, *options], env=os.environ, capture_output=True, timeout=120).returncode


def _stored(sql: str) -> list[tuple[object, ...]]:
    with duckdb.connect("dagster_home/mixpanel_data.duckdb") as connection:
        return connection.execute(sql).fetchall()


def _forget_history() -> None:
    """All that Dagster knows is gone; the DuckDB file and what is staged stay."""
    for name in ("history", "schedules", "storage"):
        shutil.rmtree(Path("dagster_home") / name, ignore_errors=True)


def test_pages_that_a_sync_without_history_lacks_are_fetched_again(
    sandbox: Sandbox, capfd: pytest.CaptureFixture[str]
) -> None:
    """Red when the publish notes no missing pages, or the retry goes by the history alone."""
    sandbox.faults = [Fault("engage", "status:403", page=page, times=None) for page in (1, 3)]
    assert _materialize("--select", "mixpanel/profiles") == 1
    assert _stored("select page_index from mixpanel.missing_pages order by 1") == [(1,), (3,)]
    sandbox.faults = []
    sandbox.journal.clear()
    assert run(["status"]) == 0
    assert json.loads(capfd.readouterr().out)["profiles"]["failed_page_indices"] == [1, 3]
    assert run(["retry", "profiles"]) == 0
    assert sorted(request.page or 0 for request in sandbox.journal.requests) == [1, 3]
    assert _stored("select count(*) from mixpanel.profiles") == [(45,)]
    assert _stored("from mixpanel.missing_pages") == []


def test_days_that_a_sync_without_history_lacks_are_fetched_again(
    sandbox: Sandbox, capfd: pytest.CaptureFixture[str]
) -> None:
    """Red when the publish notes no missing days, or the retry goes by the history alone."""
    days = ["--from", "2026-01-01", "--to", "2026-01-04", "--chunk-days", "1", "-p"]
    sandbox.faults = [Fault("export", "status:403", from_date=f"2026-01-0{day}", times=None) for day in (2, 4)]
    assert run(["fetch", "events", *days, "-e", "Signed up"]) == 1
    _forget_history()
    sandbox.faults = [Fault("export", "status:403", from_date="2026-01-04", times=None)]
    assert run(["retry", "events"]) == 1
    _forget_history()
    assert _stored("select day::varchar from mixpanel.missing_days") == [("2026-01-04",)]
    sandbox.faults = []
    sandbox.journal.clear()
    capfd.readouterr()
    assert run(["status"]) == 0
    assert json.loads(capfd.readouterr().out)["events"]["failed_date_ranges"] == [["2026-01-04", "2026-01-04"]]
    assert run(["retry", "events"]) == 0
    assert [(request.from_date, request.params["event"]) for request in sandbox.journal.requests] == [
        ("2026-01-04", '["Signed up"]')
    ]
    assert _stored("from mixpanel.missing_days") == []
    assert run(["retry", "events"]) == 0
    assert "Nothing to fetch again" in capfd.readouterr().err


@pytest.mark.parametrize("asset", ["profiles", "events"])
def test_no_record_is_not_the_same_as_nothing_owed(
    sandbox: Sandbox, capfd: pytest.CaptureFixture[str], asset: str
) -> None:
    """Red when what nobody has noted counts as nothing."""
    assert run(["retry", asset]) == 3
    said = capfd.readouterr()
    assert said.out == ""
    assert f"Error: no sync of mixpanel/{asset} is on record, neither in " in said.err
    assert f"or fetch anew (mp fetch {asset}" in said.err
    assert sandbox.journal.requests == []
    assert run(["status"]) == 0
    assert json.loads(capfd.readouterr().out)[asset] is None


def test_pages_that_another_database_lacks_are_not_fetched_into_this_one(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Red when the history alone says what is owed: the retry stored it here, and there nothing was owed any more."""
    sandbox.faults = [Fault("engage", "status:403", page=1, times=None)]
    assert run(["fetch", "profiles", "--parallel"]) == 1
    sandbox.faults = []
    sandbox.journal.clear()
    monkeypatch.setenv("MP_DATABASE", "another.duckdb")
    capfd.readouterr()
    assert run(["retry", "profiles"]) != 0
    said = capfd.readouterr().err
    assert "the last sync of mixpanel/profiles stored in " in said
    assert "another.duckdb has nothing of it: set MP_DATABASE to that, or sync mixpanel/profiles anew" in said
    assert sandbox.journal.requests == []
    monkeypatch.delenv("MP_DATABASE")
    assert run(["retry", "profiles"]) == 0
