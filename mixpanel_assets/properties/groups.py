"""Kinds of groups: each is catalogued by itself, has its views, and is a part of one table, `group_properties`.

group_<id>, group_<id>_wide, group_<id>_properties      by the number of the kind, whatever it is called
groups_wide_<name>                                      the same typed view, by its name
"""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

from collections.abc import Mapping

import duckdb

from mixpanel_assets.errors import WarehouseError
from mixpanel_assets.properties import catalogue, naming, wide_views
from mixpanel_assets.properties.catalogue import COLUMNS_TABLE, Drift
from mixpanel_assets.properties.sources import GROUPS, Source, group
from mixpanel_assets.storage.warehouse import current_schema, table_exists

_NAMED_VIEWS = "groups_wide_*"


def stored_kinds(connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    """The name of each kind that is stored, by its data_group_id.

    Raises:
        WarehouseError: none was ever synced.
    """
    if not table_exists(connection, GROUPS.table):
        raise WarehouseError(
            f"there is no table {current_schema(connection)}.{GROUPS.table} yet: materialize the asset {GROUPS.table} "
            "first"
        )
    rows = connection.execute(
        f"select data_group_id, max_by(group_key, synced_at) from {GROUPS.table} group by all order by all"
    )
    return dict(rows.fetchall())


def update(connection: duckdb.DuckDBPyConnection, kinds: Mapping[str, str], memory_mb: int) -> Drift:
    """Bring the catalogue of each kind up to date, and the table of all of them; properties of the drift are told with
    the name of their kind."""
    catalogue.create_columns_table(connection)
    drifts = [(name, catalogue.update(connection, group(number), memory_mb)) for number, name in kinds.items()]
    columns = ", ".join(f"null::{each.type} as {each.name}" for each in catalogue.COLUMNS)
    parts = [f"select null::varchar as group_key, {columns} where false"]
    parts += [
        f"select {wide_views.literal(name)} as group_key, * from {group(number).catalogue}"
        for number, name in kinds.items()
    ]
    connection.execute(f"create or replace table {GROUPS.catalogue} as {' union all by name '.join(parts)}")
    return Drift(
        new=tuple(f"{name}: {each}" for name, drift in drifts for each in drift.new),
        gone=tuple(f"{name}: {each}" for name, drift in drifts for each in drift.gone),
        retyped=tuple((f"{name}: {each}", old, new) for name, drift in drifts for each, old, new in drift.retyped),
    )


def create_views(connection: duckdb.DuckDBPyConnection, kinds: Mapping[str, str]) -> list[str]:
    """Make the views of each kind, by number and by name. Returns their names."""
    views = [view for number in kinds for view in wide_views.create_views(connection, group(number))]
    named = {number: name for number, name in kinds.items() if name != number}
    given = _named_views(connection)
    catalogue.name_columns(connection, _NAMED_VIEWS, [name for name in named.values() if name not in given])
    given = _named_views(connection)
    for number, name in named.items():
        connection.execute(f'create or replace view "{given[name]}" as from "{group(number).view}"')
    return [*views, *(given[name] for name in named.values())]


def all_kinds(connection: duckdb.DuckDBPyConnection) -> list[Source]:
    """A source for each kind that is stored."""
    return [group(number) for number in stored_kinds(connection)]


def _named_views(connection: duckdb.DuckDBPyConnection) -> dict[str, str]:
    rows = connection.execute(f"select name, column_name from {COLUMNS_TABLE} where owner = ?", [_NAMED_VIEWS])
    return {name: f"{GROUPS.view}_{column}"[: naming.MOST_CHARACTERS + 16] for name, column in rows.fetchall()}
