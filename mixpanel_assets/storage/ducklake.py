"""A DuckLake: tables as Parquet in a folder or a bucket, and a catalogue of them in Postgres, SQLite or a DuckDB file.

Who reads, reads the last commit, and keeps nobody from writing (but where the catalogue is a DuckDB file, which one
process opens at a time). DuckLake itself lets two writers insert at once, so that a row could come twice: ours take
turns, at a lock file beside the catalogue, or at a lock in its Postgres, which goes with the connection that has it.
"""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from mixpanel_assets import private_files
from mixpanel_assets.database_address import LakeAddress
from mixpanel_assets.errors import WarehouseError
from mixpanel_assets.file_turns import our_turn
from mixpanel_assets.settings import SCHEMA
from mixpanel_assets.storage import duckdb_file, lake_errors, s3
from mixpanel_assets.storage.duckdb_errors import opened_once_free
from mixpanel_assets.storage.duckdb_file import check_writable, create_whole
from mixpanel_assets.storage.lake_instance import CATALOG, LakeInstance, lake_instance
from mixpanel_assets.storage.postgres_turn import turn_in_postgres
from mixpanel_assets.storage.process_turns import turn_of_process
from mixpanel_assets.storage.sql_text import sql_text
from mixpanel_assets.storage.warehouse import Say, Warehouse

# A file goes so long after the last state that has it.
_READ_DAYS = 1
_PROBE = "mixpanel-assets-can-write.csv"


@dataclass(frozen=True)
class DuckLake(Warehouse):
    """One DuckLake.

    Attributes:
        address: Where it is. It is made when it is not there; the folder or database of its catalogue is not.
        say: Told, in a line, when another sync is waited for.
        schema: Where the tables are.
    """

    address: LakeAddress
    say: Say = lambda line: None
    schema: str = SCHEMA

    @property
    def name(self) -> str:
        return str(self.address)

    def check_ready(self) -> None:
        file = self.address.file
        if file is not None and not file.parent.is_dir():
            raise WarehouseError(f"the folder {file.parent} of MP_DATABASE does not exist: make it, or choose another")
        self._make_catalogue()
        with self._connection(duckdb_file.PREFLIGHT_WAIT_SECONDS, may_make=True) as connection:
            data = data_path(connection)
            if data.startswith("s3://"):
                connection.execute(f"copy (select 1) to {sql_text(data + _PROBE)}")
        if not data.startswith("s3://"):
            check_writable(Path(data))

    def forget_states(self, days: int) -> None:
        """Delete the states before the present one that are older, and what only they have. What cannot be deleted is
        said, and left to the next time."""
        expired = f"call ducklake_expire_snapshots('{CATALOG}', older_than => now() - interval '{days} days')"
        # Who reads such a state at the moment goes on.
        unused = f"call ducklake_cleanup_old_files('{CATALOG}', older_than => now() - interval '{_READ_DAYS} days')"
        with self._opened_if_there() as connection:
            if connection is None:
                return
            try:
                connection.execute(expired)
                connection.execute(unused)
            except duckdb.Error as error:
                self.say(f"earlier states of {self.name} are kept: {self._explained(error)}")

    @contextmanager
    def connection(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection for assets of other people, whose current database it is."""
        self._make_catalogue()
        with self._connection(duckdb_file.LOCK_WAIT_SECONDS, may_make=True) as connection:
            yield connection

    @contextmanager
    def _opened_if_there(self) -> Iterator[duckdb.DuckDBPyConnection | None]:
        file = self.address.file
        if file is not None and not file.exists():  # DuckDB would make it.
            yield None
            return
        with self._connection(duckdb_file.LOCK_WAIT_SECONDS, may_make=False) as connection:
            yield connection

    def _opened_to_write(self) -> AbstractContextManager[duckdb.DuckDBPyConnection]:
        return self.connection()

    def _turn_of_process(self) -> AbstractContextManager[Callable[[], None]]:
        if self.address.file is None:
            return turn_in_postgres(self._instance.cursor, self.address.catalogue, self.name, self.say, self._explained)
        return turn_of_process(self.address.file, self.say)

    def _explained(self, error: duckdb.Error) -> WarehouseError:
        return lake_errors.explained(error, self.address)

    @contextmanager
    def _connection(self, wait_seconds: float, *, may_make: bool) -> Iterator[Any]:
        """A connection that has it attached; None where nobody has made it and it may not be made now."""
        with our_turn(self.say), self._turn_of_reader():
            connection = None
            try:
                connection = opened_once_free(lambda: self._open(may_make=may_make), self.name, self.say, wait_seconds)
                yield connection
            except duckdb.Error as error:
                raise self._explained(error) from None
            finally:
                if connection is not None:
                    self._instance.close(connection)

    def _turn_of_reader(self) -> AbstractContextManager[object]:
        """A catalogue that is a DuckDB file is opened by one process at a time; else readers wait for nobody."""
        return self._turn_of_process() if self.address.kind == "duckdb" else nullcontext()

    def _open(self, *, may_make: bool) -> duckdb.DuckDBPyConnection | None:
        try:
            return self._instance.opened(lambda connection: _attach(connection, self.address, may_make=may_make))
        except duckdb.Error as error:
            if lake_errors.is_not_there(error):
                return None
            raise

    @property
    def _instance(self) -> LakeInstance:
        return lake_instance(self.name)

    def _make_catalogue(self) -> None:
        """See that the catalogue's file is there, its owner's alone."""
        file = self.address.file
        if file is None or file.exists():
            return
        if self.address.kind == "duckdb":
            create_whole(file)
            return
        with suppress(OSError, sqlite3.Error), closing(sqlite3.connect(file)) as catalogue:  # Opening it says why not.
            private_files.keep_to_owner(file)
            # Else who reads a transaction long keeps a sync from committing, and a commit who reads.
            catalogue.execute("pragma journal_mode = wal")


def _attach(connection: duckdb.DuckDBPyConnection, lake: LakeAddress, *, may_make: bool) -> None:
    attach = f"attach if not exists {sql_text(lake)} as {CATALOG} (create_if_not_exists false{_data_path(lake.data)})"
    try:
        connection.execute(attach)
    except duckdb.Error as error:
        if not may_make or not lake_errors.is_not_there(error):
            raise
        data = lake.data or f"{lake.catalogue}.files/"
        if not lake.is_in_bucket:
            _make_folder(Path(data))
        else:
            s3.set_up(connection, data)
        connection.execute(f"attach if not exists {sql_text(lake)} as {CATALOG} (data_path {sql_text(data)})")
        connection.execute(f"call {CATALOG}.set_option('parquet_compression', 'zstd')")
    if (data := data_path(connection)).startswith("s3://"):
        s3.set_up(connection, data)


def _make_folder(folder: Path) -> None:
    try:
        private_files.make_folder(folder)
    except OSError as error:
        raise WarehouseError(f"cannot make {folder} ({error.strerror}): set MP_DATA_PATH to another") from None


def _data_path(data: str) -> str:
    return f", data_path {sql_text(data)}" if data else ""


def data_path(connection: duckdb.DuckDBPyConnection) -> str:
    """Where the data of a DuckLake lie."""
    found = f"select tags['data_path'] from duckdb_databases() where database_name = '{CATALOG}'"
    [(path,)] = connection.execute(found).fetchall()
    return str(path)
