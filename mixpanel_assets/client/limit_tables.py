"""Limits as tables of the Postgres that several hosts share, by its clock.

Belongs here: the ledger's transactions and the notes of starts there. Does not belong here: their rules (quota.py,
start_rate.py), connections (../postgres.py).

Not pyrate-limiter's bucket for Postgres: it cannot give a request back, and its limits are fixed when it is made, where
ours are learned (see quota.py).
"""

import contextlib
import json
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as db

from mixpanel_assets import postgres
from mixpanel_assets.client.ledger_store import LEDGER_SCHEMA
from mixpanel_assets.client.quota import Ledger
from mixpanel_assets.client.start_rate import StartRate, schema_starts
from mixpanel_assets.errors import Cancelled, InstanceError, TransientError

PREFIX = "mixpanel_assets_"
_STARTS = f"{PREFIX}starts"
_CREATE_STARTS = f"create table {_STARTS} (name text primary key, starts text not null)"
_READ_STARTS = db.text(f"select starts from {_STARTS} where name = :name")
_WRITE_STARTS = db.text(
    f"insert into {_STARTS} values (:name, :starts) on conflict (name) do update set starts = excluded.starts"
)
_NOW = db.text("select extract(epoch from clock_timestamp())::float8")
_LOCK = db.text("select pg_advisory_xact_lock(:key)")
_TRY_LOCK = db.text("select pg_try_advisory_lock(:key)")
_UNLOCK = db.text("select pg_advisory_unlock(:key)")
# A host that stands still amid a transaction must not keep the others.
_GIVE_UP = db.text("set local idle_in_transaction_session_timeout = '10s'")
_LOCK_POLL_SECONDS = 0.02
# So long a server may be away, as for Dagster's own storage.
_AWAY_SECONDS = 10.0
_AWAY_POLL_SECONDS = 0.5


class LimitTables:
    """Tables beside Dagster's own. `engine` keeps its connections."""

    def __init__(self, engine: db.Engine) -> None:
        self._engine = engine

    def ledger(self, stop: threading.Event | None = None) -> Ledger:
        return Ledger(_LedgerTables(self._engine, stop or threading.Event()))

    def export_starts(self, project_id: str, *, further: bool) -> StartRate:
        return StartRate(_StartsTable(self._engine, f"export {project_id}"))

    def schema_starts(self) -> StartRate:
        return schema_starts(_StartsTable(self._engine, "schema"))

    def close(self) -> None:
        self._engine.dispose()


class _Statements:
    """A connection that takes statements as SQLite does."""

    def __init__(self, connection: db.Connection) -> None:
        self._connection = connection

    def execute(self, statement: str, values: Sequence[Any] = ()) -> Any:
        return self._connection.exec_driver_sql(statement.replace("?", "%s"), tuple(values))

    def executemany(self, statement: str, rows: Sequence[Sequence[Any]]) -> Any:
        for row in rows:
            self.execute(statement, row)


class _LedgerTables:
    """The ledger's tables; each transaction is alone."""

    prefix = PREFIX

    def __init__(self, engine: db.Engine, stop: threading.Event) -> None:
        self._engine = engine
        self._stop = stop
        self._has_tables = False
        self._clock_at = (0.0, 0.0)  # The server's, and the monotonic one of this process then.

    def clock(self) -> float:
        """Seconds since the epoch, by the server's clock as it was when the transaction began."""
        server, here = self._clock_at
        return server + time.monotonic() - here

    @contextlib.contextmanager
    def transaction(self) -> Iterator[_Statements]:
        """A connection that nobody else writes beside.

        Raises:
            TransientError: Postgres does not answer.
            InstanceError: it cannot be used.
            Cancelled: the run was asked to end meanwhile.
        """
        with _named(self._engine), contextlib.ExitStack() as ended:
            connection = _connected(self._engine, self._stop, "the quota ledger")
            ended.callback(connection.close)
            if not self._has_tables:
                postgres.create_table(connection, f"{PREFIX}told", LEDGER_SCHEMA.format(prefix=PREFIX))
                connection.rollback()
                self._has_tables = True
            connection = connection.execution_options(isolation_level="READ COMMITTED")
            with connection.begin():
                connection.execute(_GIVE_UP)
                connection.execute(_LOCK, {"key": postgres.lock_key("ledger")})
                self._clock_at = (connection.execute(_NOW).scalar_one(), time.monotonic())
                yield _Statements(connection)


class _StartsTable:
    """Starts of one kind, written down for other hosts to see."""

    def __init__(self, engine: db.Engine, name: str) -> None:
        self._engine = engine
        self._name = name
        self._key = {"key": postgres.lock_key(f"starts {name}")}
        self._connection: db.Connection | None = None  # Of whoever has the turn.
        self._has_table = False

    def clock(self) -> float:
        with _named(self._engine):
            return float(self._held().execute(_NOW).scalar_one())

    @contextlib.contextmanager
    def alone(self, stop: threading.Event) -> Iterator[None]:
        what = "a turn to ask"
        with _named(self._engine), contextlib.ExitStack() as ended:
            connection = _connected(self._engine, stop, what)
            ended.callback(connection.close)
            if not self._has_table:
                postgres.create_table(connection, _STARTS, _CREATE_STARTS)
                self._has_table = True
            while not connection.execute(_TRY_LOCK, self._key).scalar():
                if stop.wait(_LOCK_POLL_SECONDS):
                    raise Cancelled(f"cancelled while waiting for {what}")
            self._connection = connection
            try:
                yield
            finally:
                self._connection = None
                # With the connection the lock goes too.
                with contextlib.suppress(db.exc.SQLAlchemyError):
                    connection.execute(_UNLOCK, self._key)

    def read(self) -> list[float]:
        with _named(self._engine):
            starts = self._held().execute(_READ_STARTS, {"name": self._name}).scalar()
        return [float(start) for start in json.loads(starts)] if starts else []

    def write(self, starts: list[float]) -> None:
        with _named(self._engine):
            self._held().execute(_WRITE_STARTS, {"name": self._name, "starts": json.dumps(starts)})

    def _held(self) -> db.Connection:
        assert self._connection is not None, "only whoever has the turn reads and writes"
        return self._connection


def _connected(engine: db.Engine, stop: threading.Event, what: str) -> db.Connection:
    """A connection, once the server answers."""
    began = time.monotonic()
    while True:
        try:
            return engine.connect()
        except db.exc.OperationalError:
            if time.monotonic() - began > _AWAY_SECONDS:
                raise
        if stop.wait(_AWAY_POLL_SECONDS):
            raise Cancelled(f"cancelled while waiting for {what}")


@contextlib.contextmanager
def _named(engine: db.Engine) -> Iterator[None]:
    try:
        yield
    except (db.exc.OperationalError, db.exc.InterfaceError) as error:
        raise TransientError(postgres.explained(error, engine.url)) from None
    except db.exc.SQLAlchemyError as error:
        raise InstanceError(postgres.explained(error, engine.url)) from None
