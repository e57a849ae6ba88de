"""One update of a source's catalogue and views: what is ordered, and what came of it."""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

from dataclasses import dataclass

import duckdb

from mixpanel_assets.properties import catalogue, wide_views
from mixpanel_assets.properties.catalogue import MEMORY_MB, Drift
from mixpanel_assets.properties.sources import Source
from mixpanel_assets.warehouse.database import count


@dataclass(frozen=True)
class CatalogueOrder:
    """The order to bring a catalogue and its views up to date.

    Attributes:
        source: Whose properties.
        event_views: Events that get a view of their own from now on; `*`: all there are.
        unfold_nested: Nested values in the views as STRUCT (True) or JSON (False) from now on; None: as before.
        memory_mb: What DuckDB may use.
    """

    source: Source
    event_views: tuple[str, ...] = ()
    unfold_nested: bool | None = None
    memory_mb: int = MEMORY_MB


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
    drift = catalogue.update(connection, order.source, order.memory_mb)
    if order.event_views:
        wide_views.request_event_views(connection, order.event_views)
    if order.unfold_nested is not None:
        wide_views.choose_nested(connection, order.source, unfolded=order.unfold_nested)
    views = wide_views.create_views(connection, order.source)
    return Catalogued(count(connection, f"select count(*) from {order.source.catalogue}"), drift, tuple(views))
