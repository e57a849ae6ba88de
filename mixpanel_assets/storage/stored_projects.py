"""`stored_projects`: which Mixpanel project each table holds, so that another's rows never take their place.

A sync with the variables of another project would replace days, and add people, that no later sync tells apart.
"""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

import re

import duckdb

from mixpanel_assets.errors import WarehouseError

TABLE = "stored_projects"
# How `Project.source` begins; where the project is asked for may change.
_PROJECT = re.compile(r"project (\d+)")


def keep_to_project(connection: duckdb.DuckDBPyConnection, table: str, source: str | None) -> None:
    """Note whose rows a table holds, within the caller's transaction; of a table of an earlier version, from now on.

    Args:
        connection: Its current schema is the table's.
        table: The table.
        source: Whose rows come, as the client says; None: nobody knows.

    Raises:
        WarehouseError: the table is another project's.
    """
    found = _PROJECT.match(source or "")
    if found is None:
        return
    project = found[1]
    connection.execute(f"create table if not exists {TABLE} (table_name varchar, project_id varchar)")
    rows = connection.execute(f"select project_id from {TABLE} where table_name = ?", [table]).fetchall()
    if not rows:
        connection.execute(f"insert into {TABLE} values (?, ?)", [table, project])
        return
    [(holds,)] = rows
    if holds != project:
        raise WarehouseError(
            f"{table} holds rows of project {holds}, and this sync is of project {project}, of which nothing was "
            "stored: name another file for it (MP_DATABASE), or a schema (build_defs with a name)"
        )
