"""`events_typed` and `profiles_typed`: what a typed view shows, without the JSON, as a table that is kept.

A view reads the JSON at each query, some 1.7 s of CPU for one column of a million events; the table takes next to none,
for about as many bytes on disk again. It is as of the last catalogue, and of events only the days that changed are
written again. That it is there says that it is wanted.
"""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

import duckdb

from mixpanel_assets.errors import WarehouseError
from mixpanel_assets.properties import changed_days
from mixpanel_assets.properties.sources import Source
from mixpanel_assets.storage.warehouse import count, table_exists

_SEEN = "event_typed_days"
# Raise it with any change to what a row becomes: days written before are written anew.
_REVISION = "1"


def choose(connection: duckdb.DuckDBPyConnection, source: Source, *, wanted: bool) -> None:
    """Have the table from now on, empty at first, or no longer."""
    if not wanted:
        connection.execute(f"drop table if exists {source.typed_table}")
    elif not table_exists(connection, source.typed_table):
        _create(connection, source)


def update(connection: duckdb.DuckDBPyConnection, source: Source) -> None:
    """Bring the table up to date with the view, within the caller's transaction, if it is wanted.

    Raises:
        WarehouseError: the memory is too little for so many columns.
    """
    if not table_exists(connection, source.typed_table):
        return
    _fit_columns(connection, source)
    # Each thread fills 122,880 rows of all columns before it writes any: 300 columns took 437 MB with one thread, and
    # 793 with two.
    threads = count(connection, "select current_setting('threads')")
    columns = len(_columns(connection, source.typed_table))
    connection.execute("set threads = 1")
    try:
        _write(connection, source)
    except duckdb.OutOfMemoryException:
        raise WarehouseError(
            f"{source.typed_table}: memory_mb is too little for {columns} columns: raise it for the asset "
            f"{source.catalogue}, or set typed_table to false"
        ) from None
    connection.execute(f"set threads = {threads}")


def _write(connection: duckdb.DuckDBPyConnection, source: Source) -> None:
    if source.by_event:
        # No column of the view tells the project's day.
        changed_days.update(
            connection, source.typed_table, _SEEN, _REVISION, lambda _, chosen: f"{_rows(source)} {chosen}", in_utc=True
        )
    else:
        connection.execute(f"delete from {source.typed_table}")
        connection.execute(f"insert into {source.typed_table} {_rows(source)}")


def _create(connection: duckdb.DuckDBPyConnection, source: Source) -> None:
    connection.execute(f"create or replace table {source.typed_table} as {_rows(source)} limit 0")
    if source.by_event:
        connection.execute(f"drop table if exists {_SEEN}")


def _rows(source: Source) -> str:
    return f"select * exclude (properties) from {source.view}"


def _fit_columns(connection: duckdb.DuckDBPyConnection, source: Source) -> None:
    """Add columns that are new, for which no row that is there has a value; where one has another type, begin anew."""
    wanted, present = _columns(connection, source.view)[:-1], _columns(connection, source.typed_table)
    if wanted[: len(present)] != present:
        _create(connection, source)
        return
    for name, type_ in wanted[len(present) :]:
        connection.execute(f'alter table {source.typed_table} add column "{name}" {type_}')


def _columns(connection: duckdb.DuckDBPyConnection, table: str) -> list[tuple[str, str]]:
    return [(name, type_) for name, type_, *_ in connection.execute(f"describe {table}").fetchall()]
