"""Locks of runs as sessions of the Postgres that several hosts share.

Belongs here: a session per running run, what is done when it is lost, and which runs have none. Does not belong here:
what becomes of a dead run (run_locks.py), the connections' settings (../postgres.py).

Postgres drops the advisory lock of a session when its process ends, however it ends; of a host that is gone without a
word after 25 s (keepalives of both ends). But it drops it as well when the server is started again, or when something
between the two cuts the connection, while the run lives and has requests under way. So:
- A run notes in a table, by the server's clock, that it lives. Others take it for dead when its lock is free and the
  last note is older than `DEAD_AFTER_SECONDS`; a process that stands still, but has its lock, they leave alone.
- A run that lost its session takes the lock anew, and goes on. If that takes longer than `LOST_AFTER_SECONDS` it ends:
  its requests are broken off, and it loads nothing. That is over before anybody else takes its slots.
- Before a run loads, it makes sure that it still has its lock.

So a server may be away for some seconds, and a killed run holds its slots for some. A pooler between the two must give
a session of the server to one client only.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import sqlalchemy as db
from dagster import DagsterInstance

from mixpanel_assets import postgres
from mixpanel_assets.errors import InstanceError
from mixpanel_assets.executor.run_locks import RunLocks, fail_and_release

NOTE_EVERY_SECONDS = 2.0
_TRY_AGAIN_SECONDS = 0.5
LOST_AFTER_SECONDS = 8.0
# A process that stood still finds its last note old; this long it may take to write another.
SURE_AFTER_SECONDS = 2.0
# Between the two lies what breaking off requests takes.
DEAD_AFTER_SECONDS = 15.0

_TABLE = "mixpanel_assets_runs"
_CREATE = f"create table {_TABLE} (run_id text primary key, seen_at timestamptz not null)"
_BEGIN = db.text(
    f"insert into {_TABLE} values (:run, clock_timestamp())"
    " on conflict (run_id) do update set seen_at = excluded.seen_at"
)
_NOTE = db.text(f"update {_TABLE} set seen_at = clock_timestamp() where run_id = :run")
_END = db.text(f"delete from {_TABLE} where run_id = :run")
_IS_THERE = db.text(f"select from {_TABLE} where run_id = :run")
_SILENT = "seen_at < clock_timestamp() - make_interval(secs => :seconds)"
_ALL_SILENT = db.text(f"select run_id from {_TABLE} where {_SILENT}")
_IS_SILENT = db.text(f"select from {_TABLE} where run_id = :run and {_SILENT}")
_LOCK = db.text("select pg_try_advisory_lock(:key)")
_UNLOCK = db.text("select pg_advisory_unlock(:key)")
# Our former session, of which the server does not know yet that nobody is at its other end.
_END_SESSION = db.text(
    "select pg_terminate_backend(pid) from pg_locks where locktype = 'advisory' and pid = :pid and objsubid = 1"
    " and (classid::bigint << 32) | objid::bigint = :key"
)


class LockSessions(RunLocks):
    """The locks of the runs of an instance in Postgres."""

    def __init__(self, engine: db.Engine) -> None:
        self._engine = engine
        self._has_table = False

    @classmethod
    def of(cls, storage: Any) -> "LockSessions":
        """Those of an instance, by its event log storage."""
        return cls(postgres.engine_of(storage))

    @contextmanager
    def alive(self, run_id: str, stop: threading.Event) -> Iterator[Callable[[], None]]:
        """Hold the run's lock inside this block.

        Raises:
            InstanceError: another process holds it.
        """
        with self._connected():
            pass
        session = _Session(self._engine, run_id, stop)
        session.begin()
        try:
            yield session.make_sure
        finally:
            session.end()

    def fail_dead_runs(self, instance: DagsterInstance) -> list[str]:
        """Free the slots of every run whose process is gone, and report it failed. Returns their ids.

        A dead run's lock is held meanwhile, so two hosts never report the same one.
        """
        failed: list[str] = []
        with suppress(db.exc.OperationalError), self._connected() as connection:  # Who looks next will see.
            silent = connection.execute(_ALL_SILENT, {"seconds": DEAD_AFTER_SECONDS}).scalars().all()
            for run_id in silent:
                key = {"key": postgres.lock_key(run_id)}
                if not connection.execute(_LOCK, key).scalar():
                    continue
                if connection.execute(_IS_SILENT, {"run": run_id, "seconds": DEAD_AFTER_SECONDS}).first() is not None:
                    fail_and_release(instance, run_id)
                    connection.execute(_END, {"run": run_id})
                    failed.append(run_id)
                connection.execute(_UNLOCK, key)
        return failed

    def may_live(self, run_id: str) -> bool:
        """Whether the run has an entry: those of the dead go when they are failed."""
        with self._connected() as connection:
            return connection.execute(_IS_THERE, {"run": run_id}).first() is not None

    @contextmanager
    def _connected(self) -> Iterator[db.Connection]:
        with self._engine.connect() as connection:
            if not self._has_table:
                postgres.create_table(connection, _TABLE, _CREATE)
                self._has_table = True
            yield connection


class _Session:
    """The lock of one run: a thread writes notes by the connection that holds it, another looks at how old they are."""

    def __init__(self, engine: db.Engine, run_id: str, stop: threading.Event) -> None:
        self._engine = engine
        self._run = {"run": run_id}
        self._key = {"key": postgres.lock_key(run_id)}
        self._stop = stop
        self._ended = threading.Event()
        self._lost = threading.Event()
        self._noted_at = float("-inf")
        self._connection: db.Connection | None = None
        self._server_process = 0
        self._threads = [
            threading.Thread(target=work, daemon=True, name="run-lock") for work in (self._write_notes, self._watch)
        ]

    def begin(self) -> None:
        if not self._locked():
            raise InstanceError(f"run {self._run['run']} is executed by another process already")
        self._note(_BEGIN)
        for thread in self._threads:
            thread.start()

    def make_sure(self) -> None:
        while not self._lost.is_set() and self._age() > LOST_AFTER_SECONDS:
            self._lost.wait(0.1)
        if self._lost.is_set():
            raise InstanceError(
                f"the run could not tell Postgres for {LOST_AFTER_SECONDS:.0f} s that it lives, so others may have "
                "taken it for dead: it ends without loading; run it again"
            )

    def end(self) -> None:
        self._ended.set()
        self._threads[0].join(postgres.CONNECT_SECONDS + SURE_AFTER_SECONDS)
        connection = self._connection
        if connection is None or self._threads[0].is_alive():
            return  # Whoever looks will find the run over, and its entry old.
        with suppress(db.exc.SQLAlchemyError):
            connection.execute(_END, self._run)
        connection.close()

    def _write_notes(self) -> None:
        while not self._ended.is_set() and not self._lost.is_set():
            pause = NOTE_EVERY_SECONDS
            try:
                if self._connection is not None or self._locked():
                    self._note(_NOTE)
                else:
                    pause = _TRY_AGAIN_SECONDS
            except db.exc.SQLAlchemyError:
                self._let_go()
                pause = _TRY_AGAIN_SECONDS if self._age() > NOTE_EVERY_SECONDS + _TRY_AGAIN_SECONDS else 0.0
            self._ended.wait(pause)

    def _watch(self) -> None:
        """Whatever keeps the other thread: by then the run ends."""
        old_since: float | None = None
        while not self._ended.wait(_TRY_AGAIN_SECONDS) and not self._lost.is_set():
            if self._age() <= LOST_AFTER_SECONDS:
                old_since = None
            elif old_since is None:
                old_since = time.monotonic()
            elif time.monotonic() - old_since > SURE_AFTER_SECONDS:
                self._lose()

    def _age(self) -> float:
        return time.monotonic() - self._noted_at

    def _locked(self) -> bool:
        """Whether a new session has the lock."""
        connection = self._engine.connect()
        try:
            if not connection.execute(_LOCK, self._key).scalar():
                connection.execute(_END_SESSION, {**self._key, "pid": self._server_process})
                connection.close()
                return False
            self._server_process = connection.execute(db.text("select pg_backend_pid()")).scalar_one()
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return True

    def _note(self, statement: db.TextClause) -> None:
        assert self._connection is not None
        began = time.monotonic()
        if self._connection.execute(statement, self._run).rowcount:
            self._noted_at = began
        else:
            self._lose()  # Somebody has failed the run.

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.invalidate()
            connection.close()

    def _lose(self) -> None:
        self._lost.set()
        self._stop.set()
