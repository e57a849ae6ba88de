"""`mixpanel.events_sample`: what the last query with a limit brought, and no more.

A table of its own, since nothing tells which events of a day a limit leaves out: in `events` such a day would look like
one that is whole, and its checks would say that it is not.
"""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

from dataclasses import dataclass

import duckdb

from mixpanel_assets.storage.columns import create_table
from mixpanel_assets.storage.rejected_rows import REJECTED_TABLE, create_rejected_rows
from mixpanel_assets.storage.warehouse import count
from mixpanel_assets.streams.events import same_event
from mixpanel_assets.streams.events.staged import StagedSample
from mixpanel_assets.streams.events.staged_rows import NO_PLACE, add_rejected_lines, files, note_ranges, staged_events
from mixpanel_assets.streams.events.stored import COLUMNS

TABLE = StagedSample.table


@dataclass(frozen=True)
class StoredSample:
    """Its rows, and how many came that cannot be stored."""

    rows: int
    rejected: int


def publish_sample(connection: duckdb.DuckDBPyConnection, staged: StagedSample) -> int:
    """Put a sample in the place of the last one, within the caller's transaction. Returns its rows."""
    create_table(connection, TABLE, COLUMNS)
    create_rejected_rows(connection)
    if staged.ranges:
        _replace(connection, staged)
    return stored_sample(connection).rows


def stored_sample(connection: duckdb.DuckDBPyConnection) -> StoredSample:
    """What the tables say of it."""
    return StoredSample(
        count(connection, f"select count(*) from {TABLE}"),
        count(connection, f"select count(*) from {REJECTED_TABLE} where asset = '{TABLE}' and not stored"),
    )


def _replace(connection: duckdb.DuckDBPyConnection, staged: StagedSample) -> None:
    connection.execute(f"delete from {TABLE}")
    connection.execute(f"delete from {REJECTED_TABLE} where asset = '{TABLE}'")
    note_ranges(connection, staged)
    if staged_files := files(staged):
        connection.execute(
            f"insert into {TABLE} by name select {', '.join(column.name for column in COLUMNS)} "
            f"from {staged_events(staged)} where ({NO_PLACE}) is null",
            [staged_files],
        )
    placed = count(connection, f"select count(*) from {TABLE}")
    add_rejected_lines(connection, staged, TABLE, sum(part.lines for part in staged.ranges) - placed)
    same_event.delete_repeats(connection, TABLE, "true")
    for table in ("staged_ranges", "surplus"):
        connection.execute(f"drop table {table}")
