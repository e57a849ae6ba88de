"""`mixpanel.rejected_rows`: rows of any asset that cannot be stored, or not as they came, each with the reason.

asset, source, row_number    where it came: the asset, its page or range of days in words, its place there
reason, row                  why, and its text as served
synced_at                    when it was asked for
stored                       whether it is stored all the same, mended
from_day, to_day             of events: the days that were asked for
part                         of profiles: the group; NULL for users
"""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

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
