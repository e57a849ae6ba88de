"""Which database this is: a number that it holds itself, in a table of each schema of ours, wherever it lies.

Hosts that share Dagster's history may each have a DuckDB file, under the same path; a file may be renamed, or another
one put in its place.
"""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

import uuid

import duckdb

from mixpanel_assets.storage.warehouse import table_exists

TABLE = "warehouse_id"


def identity(connection: duckdb.DuckDBPyConnection) -> str | None:
    """Of the current schema; None where no sync has been since there are such numbers."""
    if not table_exists(connection, TABLE):
        return None
    found = connection.execute(f"select {TABLE} from {TABLE}").fetchone()
    return str(found[0]) if found else None


def identity_made(connection: duckdb.DuckDBPyConnection) -> str:
    """The same, made if there is none."""
    found = identity(connection)
    if found is not None:
        return found
    made = str(uuid.uuid4())
    connection.execute(f"create or replace table {TABLE} as select ? as {TABLE}", [made])
    return made
