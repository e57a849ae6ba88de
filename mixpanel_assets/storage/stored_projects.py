"""`stored_projects`: which Mixpanel project each table holds, so that another's rows never take their place.

A sync with the variables of another project would replace days, and add people, that no later sync tells apart.
"""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

import re

import duckdb

from mixpanel_assets.errors import WarehouseError
from mixpanel_assets.storage.warehouse import Warehouse, table_exists

TABLE = "stored_projects"
# How `Project.source` begins; where the project is asked for may change.
_PROJECT = re.compile(r"project (\d+)")


def check_project(warehouse: Warehouse, table: str, source: str | None) -> None:
    """Refuse a sync of another project before it asks for anything; arguments and errors as of `keep_to_project`."""
    with warehouse.reading_if_there() as connection:
        if connection is not None and table_exists(connection, TABLE):
            _refuse_other(connection, table, source)


def keep_to_project(connection: duckdb.DuckDBPyConnection, table: str, source: str | None) -> None:
    """Note whose rows a table holds, within the caller's transaction; of a table of an earlier version, from now on.

    Args:
        connection: Its current schema is the table's.
        table: The table.
        source: Whose rows come, as the client says; None: nobody knows.

    Raises:
        WarehouseError: the table is another project's.
    """
    connection.execute(f"create table if not exists {TABLE} (table_name varchar, project_id varchar)")
    comes, holds = _refuse_other(connection, table, source)
    if comes and not holds:
        connection.execute(f"insert into {TABLE} values (?, ?)", [table, comes])


def _refuse_other(
    connection: duckdb.DuckDBPyConnection, table: str, source: str | None
) -> tuple[str | None, str | None]:
    """The numbers of the project that comes, and of the one that the table holds, where they are known."""
    found = _PROJECT.match(source or "")
    rows = connection.execute(f"select project_id from {TABLE} where table_name = ?", [table]).fetchall()
    comes, holds = found[1] if found else None, str(rows[0][0]) if rows else None
    if comes and holds and comes != holds:
        raise WarehouseError(
            f"{table} holds rows of project {holds}, and this sync is of project {comes}, of which nothing was "
            "stored: name another file for it (MP_DATABASE), or a schema (build_defs with a name)"
        )
    return comes, holds
