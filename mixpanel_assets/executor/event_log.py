"""One run's way to the instance's event log: connections kept open, page news written in batches.

Belongs here: what waits, in which order it is written, and who asks for it. Does not belong here: how SQLite and
Postgres write it (event_log_sqlite.py, event_log_postgres.py), and what is written (Dagster's business). Any other
storage keeps its own behaviour.

Dagster opens a connection for every event, which costs 4-6 ms of CPU for each of the 13 events of a step, and tens of
milliseconds for a slot. With connections kept open, and the events of a tenth of a second written together, a fraction
of that remains.

What a crash may lose: the news of the last 0.1 s, that a page had begun or ended or that a day is stored; executing the
run again fetches it once more. How runs begin and end, and failures, are written at once, after all that came before.
"""

import copy
import sys
import threading
from abc import abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import sqlalchemy as db
from dagster import DagsterInstance
from dagster._core.events import (
    ASSET_CHECK_EVENTS,
    ASSET_EVENTS,
    EVENT_TYPE_TO_PIPELINE_RUN_STATUS,
    DagsterEventType,
)
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log import SqlEventLogStorage, SqliteEventLogStorage
from dagster._core.storage.event_log.schema import ConcurrencySlotsTable, PendingStepsTable

from mixpanel_assets.postgres import is_postgres

# Long enough to gather what a page's end causes, short enough for a progress bar.
WRITE_AFTER_SECONDS = 0.1

# A slot goes from one step to the next, unless another run waits for one or a person has lowered the pool's limit.
_SLOTS, _PENDING = ConcurrencySlotsTable.c, PendingStepsTable.c
_OTHERS_WAIT = (
    db.select(_PENDING.id)
    .where(
        _PENDING.concurrency_key == db.bindparam("pool"),
        _PENDING.run_id != db.bindparam("run"),
        _PENDING.assigned_timestamp.is_(None),
    )
    .exists()
)
_HAND_ON = (
    ConcurrencySlotsTable.update()
    .where(
        _SLOTS.concurrency_key == db.bindparam("pool"),
        _SLOTS.run_id == db.bindparam("run"),
        _SLOTS.step_key == db.bindparam("ended"),
        _SLOTS.deleted.is_(False),
        ~_OTHERS_WAIT,
    )
    .values(step_key=db.bindparam("next"))
)
_HAND_ON_CLAIM = (
    PendingStepsTable.update()
    .where(_PENDING.run_id == db.bindparam("run"), _PENDING.step_key == db.bindparam("ended"))
    .values(step_key=db.bindparam("next"))
)

WRITTEN_AT_ONCE = frozenset({*EVENT_TYPE_TO_PIPELINE_RUN_STATUS, DagsterEventType.STEP_FAILURE})
# What the index of all runs is told as well. Ninety stored days take 0.15 s together, and 0.6 s one by one.
INDEXED = frozenset({*ASSET_EVENTS, *ASSET_CHECK_EVENTS})


class RunEventLog(SqlEventLogStorage):
    """The instance's event log during one run. Whoever reads it finds what was stored before.

    To be mixed into a storage of Dagster's, whose `store_event` stores one event; `begin` comes after its `__init__`.
    """

    def begin(self, run_id: str) -> None:
        """Let events of this run wait from now on."""
        self._run_id = run_id
        self._waiting: list[EventLogEntry] = []
        self._index_is_behind = False
        self._tables: dict[str, bool] = {}
        self._waiting_lock = threading.Lock()
        self._writing = threading.RLock()
        self._something_waits = threading.Event()
        self._closed = threading.Event()
        self._writer = threading.Thread(target=self._write_in_background, name="event-log", daemon=True)
        self._writer.start()

    @abstractmethod
    def _write(self, batch: list[EventLogEntry]) -> None:
        """Write events in their order, and take out of the list what is written for good when a later one fails."""

    @abstractmethod
    def alone(self) -> AbstractContextManager[db.Connection]:
        """A transaction in which no other process of ours changes the pools."""

    @abstractmethod
    def let_go(self) -> None:
        """Close what is open."""

    def _wake_watchers(self) -> None:
        """Tell whoever watches the run of news."""

    def store_event(self, event: EventLogEntry) -> None:
        if self._closed.is_set():
            return  # A step that outlived its cancelled run: the run's history has ended.
        if not self._may_wait(event):
            with self._writing:
                self.flush()
                super().store_event(event)
            self._wake_watchers()
            return
        with self._waiting_lock:
            self._waiting.append(event)
            self._index_is_behind |= is_indexed(event)
        self._something_waits.set()

    def _may_wait(self, event: EventLogEntry) -> bool:
        return event.run_id == self._run_id and event.dagster_event_type not in WRITTEN_AT_ONCE

    def flush(self) -> None:
        """Write what waits, in the order it came. Raises what the database raises; the events then wait on."""
        with self._writing:
            with self._waiting_lock:
                batch, self._waiting = self._waiting, []
            if not batch:
                return
            try:
                self._write(batch)
            except BaseException:
                with self._waiting_lock:
                    self._waiting = batch + self._waiting
                raise
            with self._waiting_lock:
                self._index_is_behind = any(map(is_indexed, self._waiting))
            self._wake_watchers()

    def has_table(self, table_name: str) -> bool:
        """Dagster asks for each stored day, by a connection of its own."""
        if table_name not in self._tables:
            self._tables[table_name] = super().has_table(table_name)  # type: ignore[safe-super] # the storage has it
        return self._tables[table_name]

    def _write_in_background(self) -> None:
        while not self._closed.is_set():
            self._something_waits.wait()
            self._closed.wait(WRITE_AFTER_SECONDS)
            self._something_waits.clear()
            try:
                self.flush()
            except Exception as error:  # noqa: BLE001 - each database has errors of its own
                # Kept for the next round; the flush that the run itself asks for raises.
                self._something_waits.set()
                sys.stderr.write(f"The event log could not be written, trying again: {error}\n")

    def transfer_slot(self, pool: str, ended: str, next_: str) -> bool:
        """Give the slot of a step that has ended to the next step of this run; False if it must be freed instead.

        What Dagster offers, freeing one and claiming another, takes 12 ms, while other pages wait for their turn.
        """
        steps = {"pool": pool, "run": self._run_id, "ended": ended, "next": next_}
        with self.alone() as connection:
            handed_on = connection.execute(_HAND_ON, steps).rowcount == 1
            if handed_on:
                connection.execute(_HAND_ON_CLAIM, steps)
        return handed_on

    def close(self) -> None:
        """Write what waits, then let go of the database. Later events are dropped."""
        try:
            self.flush()
        finally:
            self._closed.set()
            self._something_waits.set()
            self._writer.join()
            self.let_go()


def is_indexed(event: EventLogEntry) -> bool:
    """Whether the index of all runs is told of it as well."""
    return event.dagster_event_type in INDEXED


@contextmanager
def run_instance(instance: DagsterInstance, run_id: str) -> Iterator[DagsterInstance]:
    """The instance as the steps of this run see it: with a `RunEventLog` where there is one for its event log.

    Only a copy is changed, as other runs may use the same instance object in this process.
    """
    log = _log_of(instance, run_id)
    if log is None:
        yield instance
        return
    own = copy.copy(instance)
    own._event_storage = log
    log.register_instance(own)
    try:
        yield own
    finally:
        log.close()


def _log_of(instance: DagsterInstance, run_id: str) -> RunEventLog | None:
    storage = instance.event_log_storage
    if type(storage) is SqliteEventLogStorage:
        from mixpanel_assets.executor.event_log_sqlite import SqliteRunLog

        return SqliteRunLog(storage._base_dir, run_id)
    if is_postgres(storage):
        from mixpanel_assets.executor.event_log_postgres import PostgresRunLog

        return PostgresRunLog(storage, run_id)
    return None


def flush(instance: DagsterInstance) -> None:
    """Write the events that still wait, if this instance lets any wait."""
    if isinstance(instance.event_log_storage, RunEventLog):
        instance.event_log_storage.flush()


def transfer_slot(instance: DagsterInstance, pool: str, ended: str, next_: str) -> bool:
    """Give a slot from one step of the run to another, if this instance can; else it has to be freed and claimed."""
    storage = instance.event_log_storage
    return isinstance(storage, RunEventLog) and storage.transfer_slot(pool, ended, next_)


def exclusively(instance: DagsterInstance) -> AbstractContextManager[object]:
    """A block in which no other process of ours changes the pools. Dagster looks whether a slot is free and takes it in
    two steps, between which another may take it, also in Postgres."""
    storage = instance.event_log_storage
    return storage.alone() if isinstance(storage, RunEventLog) else nullcontext()
