"""One update of a source's catalogue and views: what is ordered, and what came of it."""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

from dataclasses import dataclass

import duckdb

from mixpanel_assets.properties import catalogue, wide_views
from mixpanel_assets.properties.catalogue import MEMORY_MB, Drift
from mixpanel_assets.properties.sources import PROFILES, Source, group
from mixpanel_assets.settings import SCHEMA
from mixpanel_assets.storage.warehouse import count, table_exists


@dataclass(frozen=True)
class CatalogueOrder:
    """The order to bring a catalogue and its views up to date.

    Attributes:
        source: Whose properties.
        event_views: Events that get a view of their own from now on; `*`: all there are.
        unfold_nested: Nested values in the views as STRUCT (True) or JSON (False) from now on; None: as before.
        memory_mb: What DuckDB may use.
        schema: Where.
    """

    source: Source
    event_views: tuple[str, ...] = ()
    unfold_nested: bool | None = None
    memory_mb: int = MEMORY_MB
    schema: str = SCHEMA

    @property
    def table(self) -> str:
        """Where it goes."""
        return self.source.catalogue


@dataclass(frozen=True)
class Catalogued:
    """What an update left: rows of the catalogue, the drift, and the views by name."""

    rows: int
    drift: Drift
    views: tuple[str, ...]


def publish(connection: duckdb.DuckDBPyConnection, order: CatalogueOrder) -> Catalogued:
    """Carry out the order, within the caller's transaction.

    Raises:
        WarehouseError: the source was never synced.
        ConfigurationError: a view was asked for of an event that does not exist.
    """
    groups = _groups(connection) if order.source == PROFILES else []
    drift = catalogue.update(connection, order.source, order.memory_mb)
    if order.event_views:
        wide_views.request_event_views(connection, order.event_views)
    for source in groups:
        catalogue.update(connection, source, order.memory_mb)
    views: list[str] = []
    for source in (order.source, *groups):
        if order.unfold_nested is not None:
            wide_views.choose_nested(connection, source, unfolded=order.unfold_nested)
        views += wide_views.create_views(connection, source)
    return Catalogued(count(connection, f"select count(*) from {order.source.catalogue}"), drift, tuple(views))


def _groups(connection: duckdb.DuckDBPyConnection) -> list[Source]:
    """Those that were ever synced beside the users."""
    if not table_exists(connection, PROFILES.table):
        return []
    # A table of an earlier version holds users only, and has no such column.
    connection.execute(f"alter table {PROFILES.table} add column if not exists data_group_id varchar")
    stored = f"select distinct data_group_id from {PROFILES.table} where data_group_id is not null order by all"
    return [group(data_group_id) for (data_group_id,) in connection.execute(stored).fetchall()]
