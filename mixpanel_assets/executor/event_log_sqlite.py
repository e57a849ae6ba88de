"""The SQLite event log as a run with many short steps needs it.

Dagster's own opens an engine for every write, which then compiles its statements anew and checkpoints the write-ahead
log when it closes: 4-6 ms of CPU for each of the 13 events of a step, 24 ms to claim a slot. Here one connection stays
open per file, and a batch is one transaction for each file.

Locks are taken in one order, so that no two threads wait for each other: the right to write, the run's file, the index.
"""

import itertools
import os
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

import sqlalchemy as db
from dagster import AssetKey
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS

from mixpanel_assets.executor.event_log import RunEventLog, is_indexed


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


class SqliteRunLog(RunEventLog, SqliteEventLogStorage):
    """One file per run, and the index of all."""

    def __init__(self, base_dir: str, run_id: str):
        super().__init__(base_dir)
        self._shards: dict[str, Shard] = {}
        self._last_of_assets: dict[tuple[AssetKey | None, str], tuple[EventLogEntry, int]] | None = None
        self.begin(run_id)

    def _write(self, batch: list[EventLogEntry]) -> None:
        """Write events in their order, in one transaction for each file."""
        with ExitStack() as transactions:
            connection = transactions.enter_context(self._shard(self._run_id).transaction())
            if any(map(is_indexed, batch)):
                transactions.enter_context(self._assets_at_the_end())
            for indexed, events in itertools.groupby(batch, is_indexed):
                if indexed:
                    for event in events:
                        SqliteEventLogStorage.store_event(self, event)
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

    def _wake_watchers(self) -> None:
        """The web server watches the run's file for changes, which with an open connection land in the file beside it:
        without this the UI would see steps only every 4 MB, or when the run ends."""
        with suppress(OSError):
            os.utime(self.path_for_shard(self._run_id))

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

    def alone(self) -> AbstractContextManager[db.Connection]:
        """A write transaction on the index."""
        return self.index_connection()

    def let_go(self) -> None:
        for shard in self._shards.values():
            shard.close()
