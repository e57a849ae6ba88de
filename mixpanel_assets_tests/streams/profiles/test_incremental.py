"""Only what was seen since the last sync: what is asked for, when all is, and that it passes for no complete sync."""

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest

from mixpanel_assets import fetch_profiles
from mixpanel_assets.cli.main import run
from mixpanel_assets.errors import ConfigurationError
from mixpanel_assets.runs.instances import open_instance
from mixpanel_assets.sandbox import Fault, Population, Sandbox

# Dagster's own code calls it while it sets up a resource.
pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run is deprecated")


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    with Sandbox(Population(profiles=25), page_size=10) as sandbox:
        for name, value in {**sandbox.environment, "DAGSTER_HOME": str(tmp_path / "home")}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("MP_DUCKDB_PATH", str(tmp_path / "mp.duckdb"))
        yield sandbox


def stored(tmp_path: Path, query: str = "select distinct_id, properties::varchar from mixpanel.profiles") -> list[Any]:
    with duckdb.connect(str(tmp_path / "mp.duckdb")) as connection:
        return sorted(connection.execute(query).fetchall())


def change(tmp_path: Path, statement: str) -> None:
    with duckdb.connect(str(tmp_path / "mp.duckdb")) as connection:
        connection.execute(statement)


def wheres(sandbox: Sandbox) -> list[str | None]:
    """The filter of each first page."""
    return [request.params.get("where") for request in sandbox.journal.requests if request.page == 0]


def said_of_completeness() -> str:
    """The words of the last check of it."""
    key = dg.AssetCheckKey(dg.AssetKey(["mixpanel", "profiles"]), "profiles_complete")
    with open_instance() as instance:
        [record] = instance.event_log_storage.get_asset_check_execution_history(key, limit=1)
    assert record.evaluation is not None
    return record.evaluation.description or ""


def seen_now(sandbox: Sandbox, *ids: str) -> None:
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
    for distinct_id in ids:
        sandbox.population.replace(distinct_id, {"$last_seen": now, "again": True})


def test_only_what_was_seen_since(sandbox: Sandbox, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Red when the changed ones replace the table, when it asks from its own beginning, or never for all."""
    assert run(["fetch", "profiles", "--incremental", "--no-progress"]) == 0
    assert stored(tmp_path) == sorted(sandbox.population.profiles())
    people = [distinct_id for distinct_id, _ in sandbox.population.profiles()]
    seen_now(sandbox, people[3], people[17])
    sandbox.population.remove(people[0])
    assert run(["fetch", "profiles", "--incremental", "--no-progress", "-v"]) == 0
    assert "UTC are asked for, and none is removed; the last complete sync began at" in capfd.readouterr().err
    assert said_of_completeness().startswith("no complete sync: 2 profiles were seen since ")
    assert said_of_completeness().endswith("of the 25 stored none was removed")
    assert wheres(sandbox)[0] is None
    since = str(wheres(sandbox)[1]).removeprefix('properties["$last_seen"] >= ').strip('"')
    began = datetime.datetime.fromisoformat(f"{since}+00:00") + datetime.timedelta(hours=2)
    assert abs((datetime.datetime.now(datetime.timezone.utc) - began).total_seconds()) < 120
    now = dict(stored(tmp_path))
    assert {key for key, text in now.items() if "again" in text} == {people[3], people[17]}
    assert people[0] in now, "only a complete sync settles deletions"
    sandbox.clear()
    fetch_profiles(incremental=True)
    assert wheres(sandbox) != [None], "an incremental sync is a beginning for the next"
    change(tmp_path, "update mixpanel.profile_syncs set complete_began = now() - interval 23 hours")
    sandbox.clear()
    fetch_profiles(incremental=True)
    assert wheres(sandbox) == [None]
    assert stored(tmp_path) == sorted(sandbox.population.profiles())


def test_a_sync_that_lacks_a_page_is_no_beginning(sandbox: Sandbox, tmp_path: Path) -> None:
    """Red when what failed is left out by the next one; its pages may be fetched again alone."""
    fetch_profiles(parallel=True)
    people = [distinct_id for distinct_id, _ in sandbox.population.profiles()]
    seen_now(sandbox, *people[:15])
    began = stored(tmp_path, "select last_began from mixpanel.profile_syncs")
    sandbox.faults = [Fault("engage", "status:403", page=1)]
    result = fetch_profiles(parallel=True, incremental=True)
    assert result.has_failures
    assert stored(tmp_path, "select last_began from mixpanel.profile_syncs") == began
    assert len(stored(tmp_path)) == 25
    sandbox.faults = []
    fetch_profiles(retry_failed_pages=True)
    assert sum("again" in text for _, text in stored(tmp_path)) == 15
    assert len(stored(tmp_path)) == 25, "nor does its retry remove anybody"
    assert stored(tmp_path, "select last_began from mixpanel.profile_syncs") > began


def test_what_asks_for_something_else_is_complete(sandbox: Sandbox, tmp_path: Path) -> None:
    fetch_profiles(incremental=True)
    pro = 'properties["plan"] == "pro"'
    for where in (pro, pro, None):
        fetch_profiles(incremental=True, where=where, overlap_hours=0)
    assert [where and where.partition(" >= ")[0] for where in wheres(sandbox)] == [
        *(None, pro),
        f'({pro}) and properties["$last_seen"]',
        'properties["$last_seen"]',
    ]
    assert len(stored(tmp_path)) == 25
    assert len(stored(tmp_path, "from mixpanel.profile_syncs")) == 2
    change(tmp_path, "update mixpanel.profile_syncs set complete_began = now() - interval 31 day")
    fetch_profiles(incremental=True)
    assert wheres(sandbox)[-1] is None
    assert len(stored(tmp_path, "from mixpanel.profile_syncs")) == 1, "what nobody asks for any more is forgotten"
    change(tmp_path, "update mixpanel.profile_syncs set complete_began = now() + interval 1 hour")
    fetch_profiles(incremental=True)
    assert wheres(sandbox)[-1] is None, "a wrong clock is not believed"


def test_wrong_settings_ask_nothing(sandbox: Sandbox) -> None:
    for chosen in ({"distinct_ids": ["a"]}, {"cohort_id": 1}, {"output_properties": ["plan"]}):
        with pytest.raises(ConfigurationError, match=r"incremental asks for profiles by \$last_seen: leave out"):
            fetch_profiles(incremental=True, **chosen)
    for hours in (-1, 10_000, float("nan")):
        with pytest.raises(ConfigurationError, match="overlap_hours must be between 0 and 720"):
            fetch_profiles(incremental=True, overlap_hours=hours)
    assert sandbox.journal.requests == []
