"""The DuckDB file: how it is made and opened, and who may open it when.

The connection is held only while publishing, since DuckDB lets one process write and nobody else read meanwhile. Our
own processes take turns at a lock file beside it. Writers in this process take turns too, and so do we with other
people's steps.
"""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

import stat
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import duckdb

from mixpanel_assets import private_files
from mixpanel_assets.errors import WarehouseError
from mixpanel_assets.file_turns import our_turn
from mixpanel_assets.settings import SCHEMA
from mixpanel_assets.storage.duckdb_errors import explained, opened_once_free
from mixpanel_assets.storage.process_turns import turn_of_process
from mixpanel_assets.storage.read_copy import check_place, renew
from mixpanel_assets.storage.warehouse import Say, Warehouse

# A dashboard's query is over within this; a run waits as long with its rows safely staged.
LOCK_WAIT_SECONDS = 60.0
# Before the first request, a file that stays locked is more likely left open somewhere: say so soon.
PREFLIGHT_WAIT_SECONDS = 5.0
# How dagster-duckdb's resource opens a file; DuckDB shares one only with connections that were opened alike.
_AS_DAGSTER_DOES: dict[str, str | bool | int | float | list[str]] = {"custom_user_agent": "dagster"}
_STORED_IN = "select path from duckdb_databases() where database_name = current_database()"

# While the last connection to a file closes, DuckDB refuses a new one from the same process ("Unique file handle
# conflict").
_opening_or_closing = threading.Lock()


@dataclass(frozen=True)
class DuckDBFile(Warehouse):
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

    @property
    def name(self) -> str:
        return str(self.path)

    def check_ready(self) -> None:
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
    def _opened_if_there(self) -> Iterator[duckdb.DuckDBPyConnection | None]:
        if not self.path.exists():
            yield None
            return
        with self._connection(LOCK_WAIT_SECONDS) as connection:
            yield connection

    @contextmanager
    def _opened_to_write(self) -> Iterator[duckdb.DuckDBPyConnection]:
        if not self.only_if_there:
            create_whole(self.path)
        is_new = not self.path.exists()
        with self._connection(LOCK_WAIT_SECONDS) as connection, self._private_log():
            if is_new:
                private_files.keep_to_owner(self.path)
            yield connection

    def _commit(self, connection: duckdb.DuckDBPyConnection) -> None:
        connection.commit()
        if self.read_copy is None:
            return
        if reason := renew(self.read_copy, self.path, connection):
            self.say(f"all is stored, but the copy for readers, {self.read_copy}, stays as it was: {reason}")

    @contextmanager
    def _connection(self, wait_seconds: float) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection of this process's turn; a foreign lock is waited for so long."""
        with our_turn(self.say), self._turn_of_process():
            try:
                connection = opened_once_free(self._open, self.path, self.say, wait_seconds)
            except duckdb.Error as error:
                raise explained(error, self.path) from None
            with suppress(OSError):  # DuckDB would make it readable by all.
                self._spill_folder.mkdir(private_files.FOLDER_MODE)
            try:
                yield connection
            except duckdb.Error as error:
                raise explained(error, self.path) from error
            finally:
                _close(connection)

    def _turn_of_process(self) -> AbstractContextManager[Callable[[], None]]:
        return turn_of_process(self.path, self.say, self._delete_spilled)

    @property
    def _spill_folder(self) -> Path:
        """Where DuckDB writes what exceeds its memory."""
        return self.path.with_name(f"{self.path.name}.tmp")

    def _delete_spilled(self) -> None:
        with suppress(OSError):
            self._spill_folder.rmdir()

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

    def _open(self) -> duckdb.DuckDBPyConnection:
        with _opening_or_closing:
            if self.only_if_there and not self.path.exists():
                raise WarehouseError(f"{self.path} was renamed by another sync meanwhile: sync again")
            return connected_to_file(self.path)


def _close(connection: duckdb.DuckDBPyConnection) -> None:
    with _opening_or_closing:
        connection.close()


def connected_to_file(path: Path) -> duckdb.DuckDBPyConnection:
    """A connection that stores: a .csv or .parquet DuckDB opens as views in memory, and what is written is gone."""
    try:
        connection = duckdb.connect(str(path))
    except duckdb.ConnectionException:
        connection = duckdb.connect(str(path), config=_AS_DAGSTER_DOES)
    [(stored_in,)] = connection.execute(_STORED_IN).fetchall()
    if stored_in is None:
        connection.close()
        raise WarehouseError(f"{path} is not a DuckDB database: set MP_DUCKDB_PATH to another file")
    return connection


def create_whole(path: Path) -> None:
    """Make the file, if it is not there, as a whole: one that a crash left half made would be no DuckDB file."""
    if path.exists():
        return
    new = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.new")
    try:
        duckdb.connect(str(new)).close()
        private_files.keep_to_owner(new)
        # Unlike a rename this never replaces a file that another run has made meanwhile.
        path.hardlink_to(new)
    except (OSError, duckdb.Error):
        return  # It is there now, or opening it says what is wrong; without hard links DuckDB makes it in place.
    finally:
        new.unlink(missing_ok=True)


def check_writable(folder: Path) -> None:
    """Refuse a folder in which no file can be made.

    Raises:
        WarehouseError: one line that says what to do.
    """
    probe = folder / f".mixpanel-assets-{time.monotonic_ns()}"
    try:
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise WarehouseError(
            f"cannot write in {folder} ({error.strerror}): set MP_DUCKDB_PATH to another folder"
        ) from None
