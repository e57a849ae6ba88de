"""What the IO manager does with the order for a catalogue of properties, and what the UI shows of it.

Names, types and counts only: examples are personal data, and stay in the warehouse.
"""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

from collections.abc import Mapping
from typing import Any

import dagster as dg
import duckdb

from mixpanel_assets.client.server_text import visible
from mixpanel_assets.properties.descriptions import described_columns
from mixpanel_assets.properties.publish import Catalogued, CatalogueOrder, publish
from mixpanel_assets.properties.sources import GROUPS, Source
from mixpanel_assets.reports import markdown

# Metadata lies in the event log for ever.
MOST_NAMES = 100


def store(connection: duckdb.DuckDBPyConnection, order: CatalogueOrder, log: dg.DagsterLogManager) -> Mapping[str, Any]:
    """Catalogue properties, and make the views, within the caller's transaction. Returns the metadata."""
    catalogued = publish(connection, order)
    drift = catalogued.drift
    log.info(
        f"{order.schema}.{order.source.catalogue}: {len(drift.new)} new properties, {len(drift.gone)} gone, "
        f"{len(drift.retyped)} retyped; views: {', '.join(catalogued.views[:MOST_NAMES])}"
    )
    return {
        **_metadata(catalogued),
        "properties": dg.MetadataValue.md(_table(connection, order.source)),
        **_described(connection, order.source),
    }


def _metadata(catalogued: Catalogued) -> dict[str, Any]:
    drift = catalogued.drift
    retyped = [{"property": visible(name), "from": old, "to": new} for name, old, new in drift.retyped]
    return {
        "dagster/row_count": catalogued.rows,
        "views": dg.MetadataValue.json(list(catalogued.views[:MOST_NAMES])),
        "new_properties": dg.MetadataValue.json(list(map(visible, drift.new[:MOST_NAMES]))),
        "gone_properties": dg.MetadataValue.json(list(map(visible, drift.gone[:MOST_NAMES]))),
        "retyped_properties": dg.MetadataValue.json(retyped[:MOST_NAMES]),
    }


def _described(connection: duckdb.DuckDBPyConnection, source: Source) -> dict[str, Any]:
    """The columns of the typed view that Lexicon describes, under the view's name; nothing where none is."""
    columns = [
        dg.TableColumn(column, column_type, f"{markdown.code(name)}: {markdown.code(description)}")
        for column, column_type, name, description in described_columns(connection, source)
    ]
    return {source.view: dg.MetadataValue.table_schema(dg.TableSchema(columns))} if columns else {}


def _table(connection: duckdb.DuckDBPyConnection, source: Source) -> str:
    name = "group_key || ': ' || name as name" if source == GROUPS else "name"
    rows = connection.execute(
        f"select {name}, column_name, column_type, array_to_string(map_keys(types), ', '), share, distinct_values "
        f"from {source.catalogue} where event_name is null order by share desc, name limit {markdown.MOST_ROWS + 1}"
    ).fetchall()
    shown = ((*row[:4], f"{row[4]:.1%}", row[5]) for row in rows)
    return markdown.table(["property", "column", "type", "kinds", "share", "different values"], shown)
