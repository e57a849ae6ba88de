"""`mixpanel.rejected_rows`: rows of any asset that cannot be stored, or not as they came, each with the reason.

asset, source, row_number    where it came: the asset, its page or range of days in words, its place there
reason, row                  why, and its text as served
synced_at                    when it was asked for
stored                       whether it is stored all the same, mended
from_day, to_day             of events: the days that were asked for
part                         of profiles: the group; NULL for users
"""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

from collections.abc import Iterable
from pathlib import Path

import duckdb

from mixpanel_assets.storage.warehouse import has_column

REJECTED_TABLE = "rejected_rows"


def create_rejected_rows(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the table, if it is not there; take over one of an earlier version, which says more in words."""
    connection.execute(
        f"create table if not exists {REJECTED_TABLE} (asset varchar, source varchar, row_number bigint, "
        "reason varchar, row varchar, synced_at timestamptz, stored boolean, from_day date, to_day date, "
        "part varchar)"
    )
    if has_column(connection, REJECTED_TABLE, "part"):
        return
    for column in ("stored boolean", "from_day date", "to_day date", "part varchar"):
        connection.execute(f"alter table {REJECTED_TABLE} add column {column}")
    connection.execute(
        f"update {REJECTED_TABLE} set stored = reason like 'stored with %', "
        "from_day = try_cast(split_part(source, ' to ', 1) as date), "
        "to_day = try_cast(split_part(source, ' to ', 2) as date)"
    )


def add_rejected_rows(
    connection: duckdb.DuckDBPyConnection, files: Iterable[Path], longest: int, **same: object
) -> None:
    """Add what lies in staged files, JSON lines with `row`, `reason`, `text`, and perhaps `source` and `stored`.

    Args:
        connection: In the caller's transaction.
        files: The files.
        longest: Bytes of the longest line there may be.
        same: The columns that have one value for all of them.
    """
    own = {
        "source": "source",
        "row_number": "row",
        "reason": "reason",
        "row": "text",
        "stored": "coalesce(stored, false)",
        **{name: f"${name}" for name in same},
    }
    connection.execute(
        f"insert into {REJECTED_TABLE} ({', '.join(own)}) select {', '.join(own.values())} "
        "from read_json($files, format = 'newline_delimited', maximum_object_size = $longest, columns = "
        "{source: 'VARCHAR', row: 'BIGINT', reason: 'VARCHAR', text: 'VARCHAR', stored: 'BOOLEAN'})",
        {"files": list(map(str, files)), "longest": longest, **same},
    )
