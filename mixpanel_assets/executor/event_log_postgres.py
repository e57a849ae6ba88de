"""The Postgres event log as a run with many short steps needs it.

Dagster's own opens a connection for every read and write, some 21 for a page, each a process of the server; and it
commits each event by itself, 59 times a page. Here connections stay open, and what waits is one statement.

Each statement commits by itself, as with Dagster's own. In a transaction, events would get numbers long before anybody
sees them, and whoever reads on from the last number that it saw would never see them.
"""

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as db
from dagster import AssetKey
from dagster._core.events import DagsterEventType
from dagster._core.events.log import EventLogEntry
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster_postgres import PostgresEventLogStorage
from dagster_postgres.utils import create_pg_connection

from mixpanel_assets import postgres
from mixpanel_assets.executor.event_log import RunEventLog, is_indexed

_LOCK = db.text("select pg_advisory_xact_lock(:key)")
# Of these Dagster writes many at once.
_TOGETHER = frozenset({DagsterEventType.ASSET_MATERIALIZATION, DagsterEventType.ASSET_OBSERVATION})
# A host that stands still amid a transaction must not keep the others.
_GIVE_UP = db.text("set local idle_in_transaction_session_timeout = '10s'")


class PostgresRunLog(RunEventLog, PostgresEventLogStorage):
    """Tables of all runs; `storage` is Dagster's own on them."""

    def __init__(self, storage: Any, run_id: str):
        super().__init__(storage.postgres_url, should_autocreate_tables=False, token_provider=storage._token_provider)
        # Two threads write and read all the time; the steps' own seldom do.
        self._engine = postgres.engine_of(
            storage, poolclass=db.QueuePool, pool_size=2, max_overflow=-1, pool_pre_ping=True
        )
        self._here = threading.local()
        self.begin(run_id)

    def _write(self, batch: list[EventLogEntry]) -> None:
        self._here.writes = True
        try:
            while batch:
                group = next(_groups(batch))
                self._write_group(group)
                del batch[: len(group)]
        finally:
            self._here.writes = False

    def _write_group(self, group: list[EventLogEntry]) -> None:
        if not is_indexed(group[0]):
            with self._connect() as connection:
                connection.execute(SqlEventLogStorageTable.insert(), [*map(self._event_to_row, group)])
        elif group[0].dagster_event_type in _TOGETHER:
            self.store_event_batch(group)
        else:
            PostgresEventLogStorage.store_event(self, group[0])

    @contextmanager
    def _connect(self) -> Iterator[db.Connection]:
        connection = getattr(self._here, "connection", None)
        if connection is not None:
            yield connection
            return
        if not getattr(self._here, "writes", False):
            self.flush()
        with create_pg_connection(self._engine) as connection:
            yield connection

    @contextmanager
    def alone(self) -> Iterator[db.Connection]:
        """A transaction with a lock that all runs of ours take; all that this thread does is part of it."""
        connection = getattr(self._here, "connection", None)
        if connection is not None:
            yield connection
            return
        with create_pg_connection(self._engine) as fresh:
            connection = fresh.execution_options(isolation_level="READ COMMITTED")
            with connection.begin():
                connection.execute(_GIVE_UP)
                connection.execute(_LOCK, {"key": postgres.lock_key("pools")})
                self._here.connection = connection
                try:
                    yield connection
                finally:
                    self._here.connection = None

    def let_go(self) -> None:
        self._engine.dispose()


def _groups(batch: list[EventLogEntry]) -> Iterator[list[EventLogEntry]]:
    """What can be written together, in order: events that no index is told of, or those of one kind for one asset, of
    which Dagster notes the last; others come one by one."""
    for _, group in itertools.groupby(enumerate(batch), lambda each: _kind(*each)):
        yield [event for _, event in group]


def _kind(number: int, event: EventLogEntry) -> tuple[str | None, AssetKey | None, int]:
    if not is_indexed(event):
        return None, None, -1
    asset = event.get_dagster_event().asset_key
    together = event.dagster_event_type in _TOGETHER
    return event.get_dagster_event().event_type_value, asset, -1 if together else number
