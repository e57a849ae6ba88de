"""One run's way to the instance's event log: connections kept open, page news written in batches.

Belongs here: the SQLite event log as a run with many short steps needs it. Does not belong here: any other storage
(Postgres and the rest keep their own behaviour, see `run_instance`), and what is written (Dagster's business).

Dagster's own SQLite log opens an engine for every write, which then compiles its statements anew and checkpoints the
write-ahead log when it closes: 4-6 ms of CPU for each of the 13 events of a step, 24 ms to claim a slot. With one
connection kept open per file, and the events of a tenth of a second in one transaction, a fraction of that remains.

What a crash may lose: the news of the last 0.1 s, that a page had begun or ended or that a day is stored; executing the
run again fetches it once more. How runs begin and end, and failures, are written at once, after all that came before.

Locks are taken in one order, so that no two threads wait for each other: the right to write, the run's file, the index.
"""

import copy
import itertools
import os
import sqlite3
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import sqlalchemy as db
from dagster import AssetKey, DagsterInstance
from dagster._core.events import (
    ASSET_CHECK_EVENTS,
    ASSET_EVENTS,
    EVENT_TYPE_TO_PIPELINE_RUN_STATUS,
    DagsterEventType,
)
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.event_log.schema import ConcurrencySlotsTable, PendingStepsTable, SqlEventLogStorageTable
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS

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


class Shard:
    """One SQLite file, one open connection, one transaction at a time.

    A transaction takes SQLite's write lock when it begins. So whatever is read inside it still holds when it writes:
    this is what makes Dagster's check-then-update of a pool's slots safe between processes.
    """

    def __init__(self, url: str):
        self._engine = db.create_engine(
            url,
            poolclass=db.StaticPool,
            connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS, "check_same_thread": False, "isolation_level": None},
        )
        db.event.listen(self._engine, "begin", _begin_immediate)
        self._lock = threading.RLock()
        self._open: db.Connection | None = None
        self._holder: int | None = None

    @contextmanager
    def transaction(self) -> Iterator[db.Connection]:
        """The open transaction of this thread, or a new one; committed when the outermost block ends well."""
        with self._lock:
            if self._open is not None:
                yield self._open
                return
            with self._engine.begin() as connection:
                self._open, self._holder = connection, threading.get_ident()
                try:
                    yield connection
                finally:
                    self._open = self._holder = None

    @property
    def is_held_here(self) -> bool:
        """Whether this thread has a transaction open."""
        return self._holder == threading.get_ident()

    def close(self) -> None:
        with self._lock:
            self._engine.dispose()


def _begin_immediate(connection: db.Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")


class RunEventLog(SqliteEventLogStorage):
    """The instance's SQLite event log during one run. Whoever reads it finds what was stored before."""

    def __init__(self, base_dir: str, run_id: str):
        super().__init__(base_dir)
        self._run_id = run_id
        self._shards: dict[str, Shard] = {}
        self._waiting: list[EventLogEntry] = []
        self._index_is_behind = False
        self._last_of_assets: dict[tuple[AssetKey | None, str], tuple[EventLogEntry, int]] | None = None
        self._tables: dict[str, bool] = {}
        self._waiting_lock = threading.Lock()
        self._writing = threading.RLock()
        self._something_waits = threading.Event()
        self._closed = threading.Event()
        self._writer = threading.Thread(target=self._write_in_background, name="event-log", daemon=True)
        self._writer.start()

    def store_event(self, event: EventLogEntry) -> None:
        if self._closed.is_set():
            return  # A step that outlived its cancelled run: the run's history has ended.
        if not self._may_wait(event):
            self.flush()
            super().store_event(event)
            self._wake_watchers()
            return
        with self._waiting_lock:
            self._waiting.append(event)
            self._index_is_behind |= _is_indexed(event)
        self._something_waits.set()

    def _may_wait(self, event: EventLogEntry) -> bool:
        return event.run_id == self._run_id and event.dagster_event_type not in WRITTEN_AT_ONCE

    def flush(self) -> None:
        """Write what waits, in the order it came. Raises what SQLite raises; the events then wait on."""
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
                self._index_is_behind = any(map(_is_indexed, self._waiting))
            self._wake_watchers()

    def _write(self, batch: list[EventLogEntry]) -> None:
        """Write events in their order, in one transaction for each file."""
        with ExitStack() as transactions:
            connection = transactions.enter_context(self._shard(self._run_id).transaction())
            if any(map(_is_indexed, batch)):
                transactions.enter_context(self._assets_at_the_end())
            for indexed, events in itertools.groupby(batch, _is_indexed):
                if indexed:
                    for event in events:
                        super().store_event(event)
                else:
                    connection.execute(SqlEventLogStorageTable.insert(), [*map(self._event_to_row, events)])

    @contextmanager
    def _assets_at_the_end(self) -> Iterator[None]:
        """A transaction on the index that says of an asset only what its last event of each kind says, and only once:
        half the time of ninety stored days."""
        with self._shard(INDEX_SHARD_NAME).transaction() as connection:
            self._last_of_assets = {}
            try:
                yield
                for event, event_id in self._last_of_assets.values():
                    super()._store_asset_event(connection, event, event_id)
            finally:
                self._last_of_assets = None

    def _store_asset_event(self, conn: db.Connection, event: EventLogEntry, event_id: int) -> None:
        if self._last_of_assets is None:
            super()._store_asset_event(conn, event, event_id)
            return
        kind = event.get_dagster_event().asset_key, event.get_dagster_event().event_type_value
        self._last_of_assets.pop(kind, None)
        self._last_of_assets[kind] = event, event_id

    def has_table(self, table_name: str) -> bool:
        """Dagster asks for each stored day, by a connection of its own."""
        if table_name not in self._tables:
            self._tables[table_name] = super().has_table(table_name)
        return self._tables[table_name]

    def _wake_watchers(self) -> None:
        """The web server watches the run's file for changes, which with an open connection land in the file beside it:
        without this the UI would see steps only every 4 MB, or when the run ends."""
        with suppress(OSError):
            os.utime(self.path_for_shard(self._run_id))

    def _write_in_background(self) -> None:
        while not self._closed.is_set():
            self._something_waits.wait()
            self._closed.wait(WRITE_AFTER_SECONDS)
            self._something_waits.clear()
            try:
                self.flush()
            except (db.exc.SQLAlchemyError, sqlite3.Error) as error:
                # Kept for the next round; the flush that the run itself asks for raises.
                self._something_waits.set()
                sys.stderr.write(f"The event log could not be written, trying again: {error}\n")

    @contextmanager
    def _connect(self, shard: str) -> Iterator[db.Connection]:
        if self._has_news_for(shard):
            self.flush()
        with self._shard(shard).transaction() as connection:
            yield connection

    def _has_news_for(self, shard: str) -> bool:
        """Whether a reader of this file should find more in it. Who is amid a transaction has asked before it began."""
        if any(known.is_held_here for known in [*self._shards.values()]):
            return False
        return shard == self._run_id or self._index_is_behind

    def _shard(self, name: str) -> Shard:
        with self._db_lock:
            if name not in self._shards:
                url = self.conn_string_for_shard(name)
                # Usually there: Dagster has written the run's start. To look whether its tables are takes 30 ms.
                if not Path(self.path_for_shard(name)).exists():
                    self._initdb(db.create_engine(url, poolclass=db.NullPool))
                self._shards[name] = Shard(url)
            return self._shards[name]

    def transfer_slot(self, pool: str, ended: str, next_: str) -> bool:
        """Give the slot of a step that has ended to the next step of this run; False if it must be freed instead.

        What Dagster offers, freeing one and claiming another, takes 12 ms, while other pages wait for their turn.
        """
        steps = {"pool": pool, "run": self._run_id, "ended": ended, "next": next_}
        with self.index_connection() as connection:
            handed_on = connection.execute(_HAND_ON, steps).rowcount == 1
            if handed_on:
                connection.execute(_HAND_ON_CLAIM, steps)
        return handed_on

    def close(self) -> None:
        """Write what waits, then let go of the files. Later events are dropped."""
        try:
            self.flush()
        finally:
            self._closed.set()
            self._something_waits.set()
            self._writer.join()
            for shard in self._shards.values():
                shard.close()


def _is_indexed(event: EventLogEntry) -> bool:
    return event.dagster_event_type in INDEXED


@contextmanager
def run_instance(instance: DagsterInstance, run_id: str) -> Iterator[DagsterInstance]:
    """The instance as the steps of this run see it: with a `RunEventLog` where its event log is the plain SQLite one.

    Only a copy is changed, as other runs may use the same instance object in this process.
    """
    storage = instance.event_log_storage
    if type(storage) is not SqliteEventLogStorage:
        yield instance
        return
    log = RunEventLog(storage._base_dir, run_id)
    own = copy.copy(instance)
    own._event_storage = log
    log.register_instance(own)
    try:
        yield own
    finally:
        log.close()


def flush(instance: DagsterInstance) -> None:
    """Write the events that still wait, if this instance lets any wait."""
    if isinstance(instance.event_log_storage, RunEventLog):
        instance.event_log_storage.flush()


def transfer_slot(instance: DagsterInstance, pool: str, ended: str, next_: str) -> bool:
    """Give a slot from one step of the run to another, if this instance can; else it has to be freed and claimed."""
    storage = instance.event_log_storage
    return isinstance(storage, RunEventLog) and storage.transfer_slot(pool, ended, next_)


def exclusively(instance: DagsterInstance) -> Any:
    """A block in which no other process changes the pools: one write transaction on the index. Where the storage locks
    its rows by itself (Postgres does), nothing more is needed."""
    storage = instance.event_log_storage
    return storage.index_connection() if isinstance(storage, RunEventLog) else nullcontext()
