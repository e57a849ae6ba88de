"""Stored tables as files for other tools: one file per table, whole or as it was before."""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

import uuid
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import duckdb

from mixpanel_assets import private_files
from mixpanel_assets.client.server_text import one_line
from mixpanel_assets.errors import ConfigurationError, WarehouseError
from mixpanel_assets.settings import SCHEMA
from mixpanel_assets.storage.warehouse import bound_memory

if TYPE_CHECKING:
    from pathlib import Path

# DuckDB's options for COPY, by the name of the format, which is the file's ending too.
FORMATS = {
    "parquet": "format parquet, compression zstd",
    "csv": "format csv, header",
    "jsonl": "format json",
}
_MEMORY_MB = 512
_MOST_CHARACTERS = 500
_TABLES = """
    select table_name from information_schema.tables
    where table_catalog = current_database() and table_schema = ? order by 1
"""


@dataclass(frozen=True)
class ExportedTable:
    """A table in a file.

    Attributes:
        file: The file that holds it.
        rows: Its rows.
        bytes: The file's size.
    """

    file: Path
    rows: int
    bytes: int


def export_table(connection: duckdb.DuckDBPyConnection, table: str, folder: Path, kind: str) -> ExportedTable:
    """Write the table or view `mixpanel.<table>` to `<folder>/<table>.<kind>`, replacing a file of that name.

    JSON columns are text in csv, JSON in parquet and values in jsonl; instants are written as UTC.

    Args:
        connection: Its current schema is `mixpanel`.
        table: A table or view of that schema.
        folder: Made if it is not there.
        kind: One of FORMATS.

    Raises:
        ConfigurationError: there is no such table.
        WarehouseError: the file cannot be written; one that was there is as it was.
    """
    tables = [name for (name,) in connection.execute(_TABLES, [SCHEMA]).fetchall()]
    if table not in tables:
        raise ConfigurationError(f"there is no table {SCHEMA}.{table}: there are {', '.join(tables)}")
    file = folder / f"{table}.{kind}"
    new = folder / f".{file.name}.{uuid.uuid4().hex[:8]}.new"
    try:
        private_files.make_folder(folder)
        private_files.make_empty(new)
        rows = _copy(connection, table, new, kind)
        new.replace(file)
        return ExportedTable(file, rows, file.stat().st_size)
    except OSError as error:
        raise WarehouseError(f"cannot write {file} ({error.strerror}): choose another folder with --to") from None
    except duckdb.Error as error:
        raise WarehouseError(f"cannot write {file}: {one_line(str(error), _MOST_CHARACTERS)}") from None
    finally:
        with suppress(OSError):
            new.unlink(missing_ok=True)


def _copy(connection: duckdb.DuckDBPyConnection, table: str, file: Path, kind: str) -> int:
    bound_memory(connection, _MEMORY_MB)
    connection.execute("set timezone = 'UTC'")
    path = str(file).replace("'", "''")
    # DuckDB's own intermediate file would be readable by all.
    options = f"{FORMATS[kind]}, use_tmp_file false"
    [(rows,)] = connection.execute(f"copy (from {table}) to '{path}' ({options})").fetchall()
    return int(rows)
