"""One update of a source's catalogue and views: what is ordered, and what came of it."""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

from collections.abc import Iterable
from dataclasses import dataclass

import duckdb

from mixpanel_assets.properties import catalogue, groups, typed_tables, wide_views
from mixpanel_assets.properties.catalogue import MEMORY_MB, Drift
from mixpanel_assets.properties.sources import GROUPS, Source, group
from mixpanel_assets.settings import SCHEMA
from mixpanel_assets.storage.warehouse import count


@dataclass(frozen=True)
class CatalogueOrder:
    """The order to bring a catalogue and its views up to date.

    Attributes:
        source: Whose properties.
        event_views: Events that get a view of their own from now on; `*`: all there are.
        unfold_nested: Nested values in the views as STRUCT (True) or JSON (False) from now on; None: as before.
        memory_mb: What DuckDB may use.
        schema: Where.
        typed_table: Keep what the view shows as a table from now on (True), or no longer (False); None: as before.
    """

    source: Source
    event_views: tuple[str, ...] = ()
    unfold_nested: bool | None = None
    memory_mb: int = MEMORY_MB
    schema: str = SCHEMA
    typed_table: bool | None = None

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
    if order.source == GROUPS:
        kinds = groups.stored_kinds(connection)
        drift = groups.update(connection, kinds, order.memory_mb)
        _choose_struct_columns(connection, order, [group(number) for number in kinds])
        views = groups.create_views(connection, kinds)
    else:
        drift = catalogue.update(connection, order.source, order.memory_mb)
        if order.event_views:
            wide_views.request_event_views(connection, order.event_views)
        _choose_struct_columns(connection, order, [order.source])
        views = wide_views.create_views(connection, order.source)
        if order.typed_table is not None:
            typed_tables.choose(connection, order.source, wanted=order.typed_table)
        typed_tables.update(connection, order.source)
    return Catalogued(count(connection, f"select count(*) from {order.source.catalogue}"), drift, tuple(views))


def _choose_struct_columns(
    connection: duckdb.DuckDBPyConnection, order: CatalogueOrder, sources: Iterable[Source]
) -> None:
    if order.unfold_nested is not None:
        for source in sources:
            wide_views.choose_struct_columns(connection, source, unfolded=order.unfold_nested)
