"""The DuckDB file: how it is opened, what its tables are, and how a sync becomes visible: one transaction, old or new.

The connection is held only while publishing, since DuckDB lets one process write and nobody else read meanwhile. Our
own processes take turns at a lock file beside it, as long as the other one lives: whoever holds DuckDB's own lock is no
sync, and is named. Writers in this process take turns too, and so do we with other people's steps. No Dagster here, and
no request; rows go from staged files into DuckDB by its own readers.
"""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

import os
import re
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
from filelock import FileLock, Timeout

from mixpanel_assets import private_files
from mixpanel_assets.errors import Cancelled, WarehouseError
from mixpanel_assets.file_turns import our_turn
from mixpanel_assets.settings import SCHEMA
from mixpanel_assets.stopping import stop_requested
from mixpanel_assets.storage.duckdb_errors import explained, lock_holder
from mixpanel_assets.storage.duckdb_file import check_writable, connected_to_file, create_whole
from mixpanel_assets.storage.read_copy import check_place, renew

# A dashboard's query is over within this; a run waits as long with its rows safely staged.
LOCK_WAIT_SECONDS = 60.0
# Before the first request, a file that stays locked is more likely left open somewhere: say so soon.
PREFLIGHT_WAIT_SECONDS = 5.0
_LOCK_POLL_SECONDS = 0.2
_TURN_POLL_SECONDS = 0.5
# Each holds some 30 MB while it inserts.
_MOST_THREADS = 4
_SCHEMAS = "select count(*) from duckdb_schemas() where database_name = current_database() and schema_name = ?"
_TABLES = (
    "select count(*) from duckdb_tables() "
    "where database_name = current_database() and schema_name = current_schema() and table_name = ?"
)
_STORAGE = "select tags['storage_version'] from duckdb_databases() where database_name = current_database()"


@dataclass
class _TurnOfProcess:
    """The lock file of one DuckDB file, held while any thread of this process has it open."""

    lock: FileLock
    guard: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0


_processes: dict[Path, _TurnOfProcess] = {}
_writers: dict[Path, threading.Lock] = {}
_writers_guard = threading.Lock()
# While the last connection to a file closes, DuckDB refuses a new one from the same process ("Unique file handle
# conflict").
_opening_or_closing = threading.Lock()

Say = Callable[[str], None]


@dataclass(frozen=True)
class Warehouse:
    """One DuckDB file.

    Attributes:
        path: The file; it is made when it is not there, its folder is not.
        say: Told, in a line, when a lock is waited for.
        read_copy: Where a copy for readers is swapped in after each transaction; None: nowhere.
        only_if_there: Never make the file: it was found under a name that a sync may take from it meanwhile.
        schema: Where the tables are.
    """

    path: Path
    say: Say = lambda line: None
    read_copy: Path | None = None
    only_if_there: bool = False
    schema: str = SCHEMA

    def check_ready(self) -> None:
        """Refuse a path that could not be published to, before anything is fetched for it.

        Raises:
            WarehouseError: one line that says what to do.
            ConfigurationError: no copy for readers can go where it should.
        """
        if self.read_copy:
            check_place(self.read_copy, self.path)
        if self.path.exists():
            with self._connection(PREFLIGHT_WAIT_SECONDS):
                pass
        elif not self.path.parent.is_dir():
            raise WarehouseError(f"the folder {self.path.parent} does not exist: make it, or set MP_DUCKDB_PATH")
        else:
            check_writable(self.path.parent)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """No other sync of ours works with the file meanwhile. Nothing is opened."""
        with our_turn(self.say), self._turn(), self._turn_of_process():
            yield

    @contextmanager
    def transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection in a transaction: committed at the end, rolled back on any error, always closed.

        Its current schema is `schema`: tables go by their bare names.

        Raises:
            WarehouseError: the file cannot be opened or written; it holds what it held.
            Cancelled: the run was asked to stop meanwhile; it holds what it held.
        """
        with our_turn(self.say), self._turn():
            if not self.only_if_there:
                create_whole(self.path)
            # Closing rolls back; after an I/O error an explicit rollback can raise anew and hide the reason.
            is_new = not self.path.exists()
            with self._connection(LOCK_WAIT_SECONDS) as connection, self._private_log():
                if is_new:
                    private_files.keep_to_owner(self.path)
                connection.begin()
                connection.execute(f"create schema if not exists {self._schema_path(connection)}")
                connection.execute(f"use {self._schema_path(connection)}")
                yield connection
                if stop_requested().is_set():
                    raise Cancelled(f"cancelled before it was stored; {self.path} is as it was")
                connection.commit()
                self._renew_read_copy(connection)

    def _renew_read_copy(self, connection: duckdb.DuckDBPyConnection) -> None:
        if self.read_copy is None:
            return
        if reason := renew(self.read_copy, self.path, connection):
            self.say(f"all is stored, but the copy for readers, {self.read_copy}, stays as it was: {reason}")

    @contextmanager
    def reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection for queries, its current schema `schema`.

        Not read-only, so that it can share the file with a writer of this process.
        """
        with self.reading_if_there() as connection:
            if connection is None:
                raise WarehouseError(f"{self.path} holds nothing of Mixpanel yet: sync first")
            yield connection

    @contextmanager
    def reading_if_there(self) -> Iterator[duckdb.DuckDBPyConnection | None]:
        """As `reading`, but None where no sync has made the file yet, or nothing of Mixpanel in it."""
        if not self.path.exists():
            yield None
            return
        with self._connection(LOCK_WAIT_SECONDS) as connection:
            there = count(connection, _SCHEMAS, [self.schema]) > 0
            if there:
                connection.execute(f"use {self._schema_path(connection)}")
            yield connection if there else None

    def _schema_path(self, connection: duckdb.DuckDBPyConnection) -> str:
        """The schema with its catalog. DuckDB names the catalog after the file, and in one called mixpanel.duckdb plain
        `mixpanel` could mean either and is refused."""
        [(catalog,)] = connection.execute("select current_database()").fetchall()
        quoted = str(catalog).replace('"', '""')
        return f'"{quoted}"."{self.schema}"'

    @contextmanager
    def _connection(self, wait_seconds: float) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection of this process's turn; a foreign lock is waited for so long."""
        with our_turn(self.say), self._turn_of_process():
            connection = self._open(wait_seconds)
            with suppress(OSError):  # DuckDB would make it readable by all.
                self._spill_folder.mkdir(private_files.FOLDER_MODE)
            try:
                yield connection
            except duckdb.Error as error:
                raise explained(error, self.path) from error
            finally:
                _close(connection)

    @contextmanager
    def _turn_of_process(self) -> Iterator[None]:
        """No other process of ours has the file open meanwhile; threads of this one share the turn."""
        file = Path(os.path.realpath(self.path))
        with _writers_guard:
            lock = FileLock(file.with_name(f".{file.name}.lock"), mode=private_files.FILE_MODE, thread_local=False)
            turn = _processes.setdefault(file, _TurnOfProcess(lock))
        with turn.guard:
            if not turn.users:
                self._wait_for_other_processes(turn.lock)
            turn.users += 1
        try:
            yield
        finally:
            with turn.guard:
                turn.users -= 1
                if not turn.users:
                    with suppress(OSError):
                        self._spill_folder.rmdir()
                    turn.lock.release()

    def _wait_for_other_processes(self, lock: FileLock) -> None:
        told = False
        while True:
            try:
                lock.acquire(timeout=_TURN_POLL_SECONDS)
            except Timeout:
                if not told:
                    self.say(f"another sync of ours works with {self.path}; waiting for it")
                    told = True
                if stop_requested().is_set():
                    raise Cancelled(f"cancelled while another sync worked with {self.path}") from None
            except (OSError, NotImplementedError):
                return  # A folder that cannot be written, or locks no file: DuckDB's own lock is left, or says why.
            else:
                return

    @property
    def _spill_folder(self) -> Path:
        """Where DuckDB writes what exceeds its memory."""
        return self.path.with_name(f"{self.path.name}.tmp")

    @contextmanager
    def _private_log(self) -> Iterator[None]:
        """The file that DuckDB writes a commit to before the file itself, with the mode of that: DuckDB would make it
        readable by all, and a crash leave it. It goes if nothing was written.
        """
        log = self.path.with_name(f"{self.path.name}.wal")
        with suppress(OSError):
            private_files.make_empty(log, stat.S_IMODE(self.path.stat().st_mode))
        try:
            yield
        finally:
            with suppress(OSError):
                if not log.stat().st_size:
                    log.unlink()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        with _writers_guard:
            turn = _writers.setdefault(self.path, threading.Lock())
        with turn:
            yield

    def _open(self, wait_seconds: float) -> duckdb.DuckDBPyConnection:
        deadline = time.monotonic() + wait_seconds
        told = False
        while True:
            try:
                with _opening_or_closing:
                    if self.only_if_there and not self.path.exists():
                        raise WarehouseError(f"{self.path} was renamed by another sync meanwhile: sync again")
                    return connected_to_file(self.path)
            except duckdb.Error as error:
                holder = lock_holder(error)
                if holder is None or time.monotonic() >= deadline:
                    raise explained(error, self.path) from None
                if not told:
                    self.say(f"{self.path} is held by {holder}; waiting up to {wait_seconds:.0f} s for it")
                    told = True
                if stop_requested().wait(_LOCK_POLL_SECONDS):
                    raise Cancelled(f"cancelled while {holder} held {self.path}, which is as it was") from None


def _close(connection: duckdb.DuckDBPyConnection) -> None:
    with _opening_or_closing:
        connection.close()


def table_exists(connection: duckdb.DuckDBPyConnection, table: str) -> bool:
    """Whether a table is there, in the connection's current schema."""
    return count(connection, _TABLES, [table]) > 0


def current_schema(connection: duckdb.DuckDBPyConnection) -> str:
    """The schema whose tables go by their bare names."""
    [(schema,)] = connection.execute("select current_schema()").fetchall()
    return str(schema)


def has_column(connection: duckdb.DuckDBPyConnection, table: str, column: str) -> bool:
    """Whether a table that is there has a column."""
    return count(connection, "select count(*) from pragma_table_info(?) where name = ?", [table, column]) > 0


def compression(connection: duckdb.DuckDBPyConnection) -> str:
    """The clause that compresses a column of large texts, for `create table`; empty where the file has no such way.

    A million events are 92 MB instead of 209 MB, written a second faster and read as fast; 60,000 profiles 12 MB, not
    33 MB. Storage has it from version 1.2 on. In an older file DuckDB 1.5 ignores the clause, and 2.0 refuses it.
    """
    [(version,)] = connection.execute(_STORAGE).fetchall()
    found = re.match(r"v(\d+)\.(\d+)", version or "")
    return "using compression zstd" if found and (int(found[1]), int(found[2])) >= (1, 2) else ""


def bound_memory(connection: duckdb.DuckDBPyConnection, megabytes: int) -> None:
    """Keep DuckDB's memory within so much, whatever the number of rows: what exceeds it is written out."""
    connection.execute(f"set threads = {min(os.cpu_count() or 1, _MOST_THREADS)}")
    connection.execute(f"set memory_limit = '{megabytes}MB'")
    # The order of rows means nothing here, and keeping it costs memory.
    connection.execute("set preserve_insertion_order = false")


def count(
    connection: duckdb.DuckDBPyConnection, query: str, parameters: Sequence[object] | Mapping[str, object] = ()
) -> int:
    """The single number that a query returns."""
    [(number,)] = connection.execute(query, parameters).fetchall()
    return int(number)
