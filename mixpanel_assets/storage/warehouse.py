"""Where the tables are, and how a sync becomes visible there: one transaction, old or new.

Two kinds: a DuckDB file (duckdb_file.py) and a DuckLake (ducklake.py), written by the same SQL. A kind says how it is
opened, how writers take turns, what is checked before the first request, and what its errors mean.
No Dagster here, and no request; rows go from staged files into the tables by DuckDB's own readers.
"""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

import os
import re
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager

import duckdb

from mixpanel_assets.errors import Cancelled, WarehouseError
from mixpanel_assets.file_turns import our_turn
from mixpanel_assets.stopping import stop_requested

# Each holds some 30 MB while it inserts.
_MOST_THREADS = 4
_SCHEMAS = "select count(*) from duckdb_schemas() where database_name = current_database() and schema_name = ?"
_TABLES = (
    "select count(*) from duckdb_tables() "
    "where database_name = current_database() and schema_name = current_schema() and table_name = ?"
)
_STORAGE = "select tags['storage_version'] from duckdb_databases() where database_name = current_database()"

_writers: dict[str, threading.Lock] = {}
_writers_guard = threading.Lock()

Say = Callable[[str], None]


class Warehouse(ABC):
    """A database that DuckDB writes.

    Attributes:
        say: Told, in a line, when something is waited for.
        schema: Where the tables are.
    """

    say: Say
    schema: str

    @property
    @abstractmethod
    def name(self) -> str:
        """What people know it by: the path of a file, or the address of a catalogue. It holds no secret."""

    @abstractmethod
    def check_ready(self) -> None:
        """Refuse a place that could not be published to, before anything is fetched for it.

        Raises:
            WarehouseError: one line that says what to do.
            ConfigurationError: no copy for readers can go where it should.
        """

    @abstractmethod
    def _opened_if_there(self) -> AbstractContextManager[duckdb.DuckDBPyConnection | None]:
        """A connection whose current database it is, and whose errors are explained; None where nobody has made it."""

    @abstractmethod
    def _opened_to_write(self) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
        """The same once it is made, and while no other process of ours writes."""

    @abstractmethod
    def _turn_of_process(self) -> AbstractContextManager[Callable[[], None]]:
        """No other process of ours writes meanwhile. What it returns raises a WarehouseError if the turn was lost."""

    def _commit(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Make what was written visible, all or nothing."""
        connection.commit()

    def forget_states(self, days: int) -> None:  # noqa: B027
        """Delete the states before the present one that are older, where there are any."""

    @contextmanager
    def turn(self) -> Iterator[Callable[[], None]]:
        """No other sync of ours works with it meanwhile. What it returns raises a WarehouseError if that was lost."""
        with our_turn(self.say), self._turn_of_thread(), self._turn_of_process() as still_ours:
            yield still_ours

    @contextmanager
    def transaction(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection in a transaction: committed at the end, rolled back on any error, always closed.

        Its current schema is `schema`: tables go by their bare names.

        Raises:
            WarehouseError: it cannot be opened or written; it holds what it held.
            Cancelled: the run was asked to stop meanwhile; it holds what it held.
        """
        # Closing rolls back; after an I/O error an explicit rollback can raise anew and hide the reason.
        with self.turn() as still_ours, self._opened_to_write() as connection:
            connection.begin()
            connection.execute(f"create schema if not exists {self._schema_path(connection)}")
            connection.execute(f"use {self._schema_path(connection)}")
            yield connection
            if stop_requested().is_set():
                raise Cancelled(f"cancelled before it was stored; {self.name} is as it was")
            still_ours()
            self._commit(connection)

    @contextmanager
    def reading(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection for queries, its current schema `schema`.

        Not read-only, so that it can share a file with a writer of this process.
        """
        with self.reading_if_there() as connection:
            if connection is None:
                raise WarehouseError(f"{self.name} holds nothing of Mixpanel yet: sync first")
            yield connection

    @contextmanager
    def reading_if_there(self) -> Iterator[duckdb.DuckDBPyConnection | None]:
        """As `reading`, but None where no sync has made it yet, or nothing of Mixpanel in it."""
        with self._opened_if_there() as connection:
            if connection is None or not count(connection, _SCHEMAS, [self.schema]):
                yield None
                return
            connection.execute(f"use {self._schema_path(connection)}")
            yield connection

    def _schema_path(self, connection: duckdb.DuckDBPyConnection) -> str:
        """The schema with its catalog. DuckDB names the catalog after the file, and in one called mixpanel.duckdb plain
        `mixpanel` could mean either and is refused."""
        [(catalog,)] = connection.execute("select current_database()").fetchall()
        quoted = str(catalog).replace('"', '""')
        return f'"{quoted}"."{self.schema}"'

    @contextmanager
    def _turn_of_thread(self) -> Iterator[None]:
        with _writers_guard:
            turn = _writers.setdefault(self.name, threading.Lock())
        with turn:
            yield


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
