"""`mixpanel.rejected_rows`: rows of any asset that cannot be stored, each with the reason."""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

import duckdb

REJECTED_TABLE = "rejected_rows"


def create_rejected_rows(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the table, if it is not there."""
    connection.execute(
        f"create table if not exists {REJECTED_TABLE} "
        "(asset varchar, source varchar, row_number bigint, reason varchar, row varchar, synced_at timestamptz)"
    )
