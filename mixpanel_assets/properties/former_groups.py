"""Groups that versions before kept among the profiles: they move to the table `groups`, with what was rejected of
them, and their views follow. Nothing of them is lost; until a sync names their kind, it is called by its number.
"""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

import duckdb

from mixpanel_assets.properties import groups, wide_views
from mixpanel_assets.properties.sources import GROUPS, PROFILES
from mixpanel_assets.storage.columns import create_table
from mixpanel_assets.storage.rejected_rows import REJECTED_TABLE, create_rejected_rows
from mixpanel_assets.storage.warehouse import count, current_schema, has_column, table_exists
from mixpanel_assets.streams.groups.stream import GROUP_PAGES
from mixpanel_assets.streams.snapshot.stream import FILTER

_FORMER = f"from {PROFILES.table} where data_group_id is not null"


def take_over(connection: duckdb.DuckDBPyConnection) -> str | None:
    """Move them, within the caller's transaction. Returns a line that says so, None where there are none."""
    if not (table_exists(connection, PROFILES.table) and has_column(connection, PROFILES.table, "data_group_id")):
        return None
    moved = count(connection, f"select count(*) {_FORMER}")
    if not moved:
        return None
    create_table(connection, GROUPS.table, GROUP_PAGES.table_columns, [FILTER])
    # A group that is there already was asked for by its own asset.
    connection.execute(
        f"insert into {GROUPS.table} by name select data_group_id, distinct_id as group_id, properties, "
        f"data_group_id as group_key, last_seen, synced_at, sync_filter {_FORMER} "
        f"and (data_group_id, distinct_id) not in (select data_group_id, group_id from {GROUPS.table})"
    )
    connection.execute(f"delete {_FORMER}")
    create_rejected_rows(connection)
    connection.execute(
        f"update {REJECTED_TABLE} set asset = '{GROUPS.table}' where asset = '{PROFILES.table}' and part is not null"
    )
    for source in groups.all_kinds(connection):
        if table_exists(connection, source.catalogue):
            wide_views.create_views(connection, source)
    schema = current_schema(connection)
    return (
        f"{moved} groups moved from {schema}.{PROFILES.table} to {schema}.{GROUPS.table}, which mixpanel/groups keeps"
    )
