"""The default file's name: what has the former one is taken over whole, or left alone with a word."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest

from mixpanel_assets.errors import WarehouseError
from mixpanel_assets.resources import WarehouseResource, warehouse_at
from mixpanel_assets.sandbox import Population, Sandbox
from mixpanel_assets.storage.duckdb_file import DuckDBFile
from mixpanel_assets.storage.file_name import under_present_name
from mixpanel_assets.storage.warehouse import Warehouse, count
from mixpanel_assets_tests.pipeline import Pipeline

pytestmark = pytest.mark.process

_COMMIT_AND_DIE = """
import duckdb, os, sys
connection = duckdb.connect(sys.argv[1])
connection.execute("create schema mixpanel; create table mixpanel.mixpanel.mine as select 1 as n")
connection.execute("checkpoint")
connection.execute("insert into mixpanel.mixpanel.mine values (2)")
os._exit(1)
"""
_READ = """
import duckdb, sys
connection = duckdb.connect(sys.argv[1], read_only=True)
print("open", flush=True)
sys.stdin.readline()
"""


class Log(dg.DagsterLogManager):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def warning(self, msg: object, *args: Any, **kwargs: Any) -> None:
        self.said.append(str(msg))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def former(home: Path) -> Path:
    """A file with the former name, its last commit only in its .wal: the process was killed."""
    path = home / "mixpanel.duckdb"
    subprocess.run([sys.executable, "-c", _COMMIT_AND_DIE, str(path)], check=False)
    assert (home / "mixpanel.duckdb.wal").stat().st_size
    return path


@pytest.fixture
def reader(former: Path) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        [sys.executable, "-c", _READ, str(former)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
        yield process
        process.kill()


def names(home: Path) -> set[str]:
    return {path.name for path in home.iterdir() if "duckdb" in path.name and not path.name.startswith(".")}


def rows(warehouse: Warehouse) -> int:
    with warehouse.reading() as connection:
        return count(connection, "select count(*) from mine")


def test_a_sync_takes_it_over_with_all_that_it_holds(
    tmp_path: Path, home: Path, former: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red without the rename (the tables are called mixpanel.mixpanel still), and without the checkpoint before it."""
    with (
        dg.DagsterInstance.ephemeral() as instance,
        Sandbox(Population(profiles=45, seed=2), page_size=10) as sandbox,
    ):
        pipeline = Pipeline.start(instance, sandbox, home, monkeypatch)
        synced = pipeline.sync()
    assert synced.success, synced.words
    assert f"{former} is called mixpanel_data.duckdb from now on" in synced.words
    assert names(home) == {"mixpanel_data.duckdb"}
    assert pipeline.query("select count(*) from mixpanel.profiles") == [(45,)]
    assert pipeline.query("select count(*) from mixpanel.mine") == [(2,)]


def test_it_is_read_before_a_sync_came(former: Path) -> None:
    """Red when only the present name is looked for: `mp status` said that nothing was ever synced."""
    assert rows(warehouse_at("", print)) == 2
    assert former.exists()


def test_what_somebody_has_open_keeps_its_name(home: Path, former: Path, reader: "subprocess.Popen[str]") -> None:
    """Red when it is renamed without DuckDB's lock: the reader's next look is at a file that is not there."""
    log = Log()
    assert WarehouseResource().open_for_sync(log).name == str(former)
    [line] = log.said
    assert line.startswith(f"{former} is held by process {reader.pid} (")
    assert line.endswith("so that it keeps its former name until a later sync")
    reader.kill()
    reader.wait()
    assert rows(WarehouseResource().open_for_sync(Log())) == 2
    assert names(home) == {"mixpanel_data.duckdb"}


def test_what_this_process_has_open_keeps_its_name(home: Path, former: Path) -> None:
    """Red without a configuration of its own: the log of the other connection's next commit has the former name."""
    log = Log()
    with duckdb.connect(str(former)):
        assert WarehouseResource().open_for_sync(log).name == str(former)
    assert "is held by another connection of this process" in log.said[0]


def test_two_files_stay_two(home: Path, former: Path) -> None:
    """Red when a file that is there is renamed over."""
    with DuckDBFile(home / "mixpanel_data.duckdb").transaction() as connection:
        connection.execute("create table mine as select range as n from range(7)")
    log = Log()
    assert rows(WarehouseResource().open_for_sync(log)) == 7
    assert rows(DuckDBFile(former)) == 2
    assert log.said == [
        f"{home / 'mixpanel_data.duckdb'} is used; mixpanel.duckdb beside it is left alone: delete it, or move it away"
    ]


@pytest.mark.parametrize("named_by", ["environment", "code"])
def test_a_name_that_its_owner_chose_stays(former: Path, monkeypatch: pytest.MonkeyPatch, named_by: str) -> None:
    """Red when every file of that name is taken for the default one."""
    if named_by == "environment":
        monkeypatch.setenv("MP_DUCKDB_PATH", str(former))
    log = Log()
    warehouse = WarehouseResource(database=str(former) if named_by == "code" else "").open_for_sync(log)
    assert rows(warehouse) == 2
    assert warehouse.name == str(former)
    [line] = log.said
    assert line.startswith(f"in {former} tables are called mixpanel.mixpanel.profiles, and so on")


def test_syncs_that_begin_together_find_the_same_file(home: Path, former: Path) -> None:
    """Red without the turn: the second is told of a file that is not there."""
    log, together = Log(), threading.Barrier(4)

    def begin(_: int) -> Path:
        found = warehouse_at("", log.warning)
        assert isinstance(found, DuckDBFile)
        together.wait()
        return under_present_name(found, former).path

    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(begin, range(4))) == {home / "mixpanel_data.duckdb"}
    assert len(log.said) == 1


def test_a_file_renamed_meanwhile_is_not_made_anew(home: Path, former: Path) -> None:
    """Red without `only_if_there`: what is stored lies in a file that nobody looks at any more."""
    found = warehouse_at("", print)
    WarehouseResource().open_for_sync(Log())
    with pytest.raises(WarehouseError, match="was renamed by another sync meanwhile: sync again"), found.transaction():
        pass
    assert names(home) == {"mixpanel_data.duckdb"}
