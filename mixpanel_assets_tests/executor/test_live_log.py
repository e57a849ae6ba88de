"""What others see of a run's events: the web server while it runs, and who asks the index of all runs."""

import sqlite3
import threading
from pathlib import Path

import pytest
from dagster import AssetMaterialization, AssetObservation, DagsterEvent, DagsterEventType
from dagster._core.events import AssetObservationData, StepMaterializationData
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log import SqliteEventLogStorage

from mixpanel_assets.executor.event_log_sqlite import SqliteRunLog

pytestmark = pytest.mark.unit

_RUN = "00000000-0000-0000-0000-000000000001"


def test_a_watcher_is_told_while_the_run_goes_on(tmp_path: Path) -> None:
    """Red without `_wake_watchers`: the watcher waits until the log is closed."""
    web_server = SqliteEventLogStorage(str(tmp_path))
    log = SqliteRunLog(str(tmp_path), _RUN)
    seen = threading.Event()
    try:
        log.store_event(_step("first"))
        log.flush()
        web_server.watch(_RUN, None, lambda entry, cursor: seen.set())
        log.store_event(_step("second"))
        assert seen.wait(10)
    finally:
        log.close()
        web_server.dispose()


def test_the_index_is_told_what_dagsters_own_log_tells_it(tmp_path: Path) -> None:
    """Red when a batch tells it of an asset's last event of any kind only: the last materialization is then missing."""
    entries = [
        *(_materialization(asset, day) for day in range(3) for asset in ("events", "profiles")),
        _observation("events"),
        _step("between"),
        _materialization("profiles", 3),
    ]
    made, plain = (SqliteEventLogStorage(str(tmp_path / name)) for name in ("own", "plain"))
    own = SqliteRunLog(str(tmp_path / "own"), _RUN)
    for number, entry in enumerate(entries):
        stamped = entry._replace(timestamp=float(number))
        own.store_event(stamped)
        plain.store_event(stamped)
    own.close()
    for storage in (made, plain):
        storage.dispose()
    assert _index(tmp_path / "own") == _index(tmp_path / "plain")


def _index(folder: Path) -> dict[str, list[object]]:
    queries = {
        "asset_keys": "asset_key, last_materialization, last_run_id, last_materialization_timestamp",
        "event_logs": "id, run_id, event, dagster_event_type, timestamp, asset_key, partition",
        "asset_event_tags": "asset_key, event_id, key, value",
    }
    with sqlite3.connect(folder / "index.db") as connection:
        return {
            table: connection.execute(f"select {columns} from {table} order by 1, 2").fetchall()
            for table, columns in queries.items()
        }


def _materialization(asset: str, day: int) -> EventLogEntry:
    made = AssetMaterialization(asset, partition=str(day), tags={"dagster/data_version": str(day)})
    return _entry(DagsterEventType.ASSET_MATERIALIZATION, StepMaterializationData(made))


def _observation(asset: str) -> EventLogEntry:
    return _entry(DagsterEventType.ASSET_OBSERVATION, AssetObservationData(AssetObservation(asset)))


def _step(message: str) -> EventLogEntry:
    return _entry(DagsterEventType.STEP_START, None, message)


def _entry(
    kind: DagsterEventType, data: StepMaterializationData | AssetObservationData | None, message: str = ""
) -> EventLogEntry:
    return EventLogEntry(  # type: ignore[no-untyped-call]  # Dagster leaves it bare
        error_info=None,
        level="debug",
        user_message=message,
        run_id=_RUN,
        timestamp=1.0,
        dagster_event=DagsterEvent(kind.value, "job", step_key="page", event_specific_data=data, message=message),
    )
