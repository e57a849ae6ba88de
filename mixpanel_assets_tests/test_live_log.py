"""What the web server sees of a run while it runs."""

import threading
from pathlib import Path

from dagster import DagsterEvent, DagsterEventType
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log import SqliteEventLogStorage

from mixpanel_assets.executor.event_log import RunEventLog

_RUN = "00000000-0000-0000-0000-000000000001"


def test_a_watcher_is_told_while_the_run_goes_on(tmp_path: Path) -> None:
    """Red without `_wake_watchers`: the watcher waits until the log is closed."""
    web_server = SqliteEventLogStorage(str(tmp_path))
    log = RunEventLog(str(tmp_path), _RUN)
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


def _step(message: str) -> EventLogEntry:
    return EventLogEntry(  # type: ignore[no-untyped-call]  # Dagster leaves it bare
        error_info=None,
        level="debug",
        user_message=message,
        run_id=_RUN,
        timestamp=1.0,
        dagster_event=DagsterEvent(DagsterEventType.STEP_START.value, "job", step_key="page", message=message),
    )
