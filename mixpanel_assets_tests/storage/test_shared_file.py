"""One run with our assets and a user's on the same DuckDB file, each opening it in its own way, as threads."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest
from dagster._core.definitions.reconstruct import ReconstructableRepository

from mixpanel_assets import settings
from mixpanel_assets.definitions import build_defs
from mixpanel_assets.errors import Cancelled, WarehouseError
from mixpanel_assets.executor import threaded_executor
from mixpanel_assets.file_turns import FileTurns, our_turn
from mixpanel_assets.resources import WarehouseResource
from mixpanel_assets.sandbox import Population, Sandbox
from mixpanel_assets.stopping import stoppable
from mixpanel_assets.storage import duckdb_file as database
from mixpanel_assets.storage.duckdb_file import DuckDBFile
from mixpanel_assets.storage.warehouse import Warehouse, count


def read_only(path: str) -> AbstractContextManager[Any]:
    return duckdb.connect(path, read_only=True)


def plain(path: str) -> AbstractContextManager[Any]:
    return duckdb.connect(path)


def resource(path: str) -> AbstractContextManager[Any]:
    return WarehouseResource(database=path).get_connection()


@contextmanager
def attached(path: str) -> Iterator[Any]:
    with duckdb.connect() as connection:
        connection.execute(f"attach '{path}' as warehouse (read_only)")
        connection.execute("use warehouse")
        yield connection


WAYS = [read_only, plain, resource, attached]
_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
PROFILES = dg.AssetKey(["mixpanel", "profiles"])


def _asset(opened: Callable[[str], AbstractContextManager[Any]]) -> dg.AssetsDefinition:
    @dg.asset(name=f"their_{opened.__name__}", deps=[PROFILES])
    def theirs() -> dg.MaterializeResult[None]:
        """Opens and closes the file again and again: whenever another opens it, this one is there."""
        rows = 0
        for _ in range(40):
            with opened(str(settings.database())) as connection:
                [(catalog,)] = connection.execute("select current_database()").fetchall()
                [(rows,)] = connection.execute(f"select count(*) from {catalog}.mixpanel.profiles").fetchall()
                time.sleep(0.02)
        return dg.MaterializeResult(metadata={"rows": rows})

    return theirs


def _job(way: Callable[[str], AbstractContextManager[Any]]) -> Any:
    chosen = dg.AssetSelection.assets(["mixpanel", "profiles"], ["mixpanel", "profile_properties"])
    return dg.define_asset_job(way.__name__, chosen | dg.AssetSelection.assets(f"their_{way.__name__}"))


defs = dg.Definitions.merge(
    build_defs(),
    dg.Definitions(
        assets=[_asset(way) for way in WAYS],
        jobs=[_job(way) for way in WAYS],
        executor=threaded_executor,
    ),
)


@pytest.mark.parametrize("way", [way.__name__ for way in WAYS])
def test_their_asset_and_ours_in_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Red without `FileTurns`: "Can't open a connection to same database file with a different configuration", of
    their asset or of our checks and columns, which run at the same time."""
    monkeypatch.delenv("MP_DUCKDB_PATH", raising=False)
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    job = ReconstructableRepository.for_module(__name__, "defs").get_reconstructable_job(way)
    with Sandbox(Population(profiles=45, seed=2), page_size=10) as sandbox:
        for name, value in sandbox.environment.items():
            monkeypatch.setenv(name, value)
        with (
            dg.DagsterInstance.local_temp(str(tmp_path), overrides={"telemetry": {"enabled": False}}) as instance,
            dg.execute_job(job, instance=instance, run_config=_QUIET) as result,
        ):
            failed = {event.step_key: event.step_failure_data.error for event in result.get_step_failure_events()}
            assert result.success, failed
            [stored] = result.asset_materializations_for_node(f"their_{way}")
            assert stored.metadata["rows"].value == 45


class TestTurns:
    def test_their_step_begins_when_no_connection_of_ours_is_open(self) -> None:
        """Red without the count of connections."""
        turns, began = FileTurns(), threading.Event()

        def theirs() -> None:
            with turns.their_step("theirs"):
                began.set()

        thread = threading.Thread(target=theirs)
        with turns.our_step(), our_turn(print):
            thread.start()
            assert not began.wait(0.3)
            with our_turn(print):  # a second one within the first waits for nobody
                pass
        assert began.wait(5)
        thread.join()

    def test_a_wish_to_stop_ends_our_wait(self) -> None:
        """Red when only the end of their step does."""
        turns, stop = FileTurns(), threading.Event()
        stop.set()
        said: list[str] = []
        with (
            stoppable(stop),
            turns.their_step("dbt_models"),
            turns.our_step(),
            pytest.raises(Cancelled, match="waiting for dbt_models"),
            our_turn(said.append),
        ):
            pass
        assert said == ["waiting for dbt_models, which may have the DuckDB file open in this process"]

    def test_what_their_step_opens_through_us_waits_for_nobody(self, tmp_path: Path) -> None:
        """Red when a step of theirs that uses our warehouse waits for itself."""
        with FileTurns().their_step("theirs"), DuckDBFile(tmp_path / "x.duckdb").transaction() as connection:
            connection.execute("create table t as select 1")


class TestConnectionsLeftOpen:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        with DuckDBFile(tmp_path / "x.duckdb").transaction() as connection:
            connection.execute("create table t as select 1 as n")
        return tmp_path / "x.duckdb"

    @pytest.mark.parametrize("way", [plain, resource])
    def test_one_that_may_write_is_joined(self, path: Path, way: Callable[[str], AbstractContextManager[Any]]) -> None:
        """Red for the resource's without the second configuration."""
        with way(str(path)) as theirs:
            with DuckDBFile(path).transaction() as connection:
                connection.execute("insert into t values (2)")
            assert count(theirs, "select count(*) from x.mixpanel.t") == 2

    @pytest.mark.parametrize("way", [read_only, attached])
    def test_one_that_may_not_is_waited_for(
        self, path: Path, way: Callable[[str], AbstractContextManager[Any]], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Red when what DuckDB says of it is no reason to wait."""
        said: list[str] = []
        warehouse = DuckDBFile(path, said.append)
        with way(str(path)):
            monkeypatch.setattr(database, "LOCK_WAIT_SECONDS", 0.3)
            with pytest.raises(WarehouseError, match="is held by another connection of this process: close it there"):
                self.write(warehouse)
        assert said == [f"{path} is held by another connection of this process; waiting up to 0 s for it"]
        self.write(warehouse)

    def write(self, warehouse: Warehouse) -> None:
        with warehouse.transaction() as connection:
            connection.execute("insert into t values (2)")
