"""The DuckDB file as a file: how it is made, and opened. Who may open it when is warehouse.py's."""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

import time
import uuid
from pathlib import Path

import duckdb

from mixpanel_assets import private_files
from mixpanel_assets.errors import WarehouseError

# How dagster-duckdb's resource opens a file; DuckDB shares one only with connections that were opened alike.
_AS_DAGSTER_DOES: dict[str, str | bool | int | float | list[str]] = {"custom_user_agent": "dagster"}
_STORED_IN = "select path from duckdb_databases() where database_name = current_database()"


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
