"""`mixpanel.merged_identities`, the ids that are not alone, and the view `mixpanel.identities` of all of the events."""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

from dataclasses import dataclass

import duckdb

from mixpanel_assets.errors import WarehouseError
from mixpanel_assets.identities import clusters, links
from mixpanel_assets.properties.catalogue import MEMORY_MB
from mixpanel_assets.properties.sources import EVENTS
from mixpanel_assets.settings import SCHEMA
from mixpanel_assets.storage.columns import Column, create_table
from mixpanel_assets.storage.warehouse import bound_memory, count, current_schema, table_exists

VIEW, TABLE = "identities", "merged_identities"
COLUMNS = (
    Column("distinct_id", "VARCHAR", "An id that events have, or that was merged.", nullable=False),
    Column(
        "canonical_id", "VARCHAR", "The one that Mixpanel goes by today; itself where none was merged.", nullable=False
    ),
    Column("ids", "BIGINT", "How many ids have this canonical one.", nullable=False),
    Column(
        "is_proven",
        "BOOLEAN",
        "Whether Mixpanel has shown that the two are one; else somebody asked it to merge them.",
        nullable=False,
    ),
)


@dataclass(frozen=True)
class IdentitiesOrder:
    """The order to bring them up to date. `memory_mb`: what DuckDB may use; `schema`: where."""

    memory_mb: int = MEMORY_MB
    schema: str = SCHEMA

    @property
    def table(self) -> str:
        """Where it goes."""
        return VIEW


@dataclass(frozen=True)
class Identified:
    """What an update left: ids that are merged, into how many, and how many clusters were not believed."""

    merged: int
    persons: int
    doubtful: int


def publish(connection: duckdb.DuckDBPyConnection, order: IdentitiesOrder) -> Identified:
    """Carry out the order, within the caller's transaction.

    Raises:
        WarehouseError: events were never synced.
    """
    if not table_exists(connection, EVENTS.table):
        table = f"{current_schema(connection)}.{EVENTS.table}"
        raise WarehouseError(f"there is no table {table} yet: materialize the asset {EVENTS.table} first")
    bound_memory(connection, order.memory_mb)
    links.update(connection)
    clusters.find(connection)
    create_table(connection, TABLE, COLUMNS)
    connection.execute(f"delete from {TABLE}")
    connection.execute(f"insert into {TABLE} by name from clustered")
    connection.execute(
        f"create or replace view {VIEW} as select distinct_id, coalesce(canonical_id, distinct_id) as canonical_id, "
        "coalesce(ids, 1) as ids, coalesce(is_proven, true) as is_proven from "
        f"(select distinct_id from {EVENTS.table} where distinct_id is not null union select distinct_id from {TABLE}) "
        f"left join {TABLE} using (distinct_id)"
    )
    left = Identified(
        merged=count(connection, f"select count(*) from {TABLE}"),
        persons=count(connection, f"select count(distinct canonical_id) from {TABLE}"),
        doubtful=count(connection, "select count(*) from doubtful"),
    )
    connection.execute("drop table clustered; drop table doubtful")
    return left
