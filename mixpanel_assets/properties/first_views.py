"""The first catalogue and typed views of a source, right after the sync that made its table.

Later updates are the property assets'; the first is made here, so that `profiles_wide` is there once profiles are,
whoever started the sync and whether or not a daemon runs its sensors.
"""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

import duckdb

from mixpanel_assets.client.server_text import one_line
from mixpanel_assets.errors import MixpanelAssetsError
from mixpanel_assets.properties.groups import all_kinds
from mixpanel_assets.properties.publish import CatalogueOrder, publish
from mixpanel_assets.properties.sources import GROUPS, Source
from mixpanel_assets.storage.warehouse import Warehouse, count, table_exists

# Counting so many takes about a second; a first load of more would have to wait for it.
MOST_ROWS = 50_000


def ensure_views(warehouse: Warehouse, source: Source) -> None:
    """Make the catalogue and the views of a source, or a kind of groups, that has none yet, unless its table is large.

    What goes wrong is said to the warehouse's `say` and raised to nobody: the rows of the sync are stored.
    """
    try:
        if _wanted(warehouse, source):
            with warehouse.transaction() as connection:
                publish(connection, CatalogueOrder(source))
    except (MixpanelAssetsError, duckdb.Error) as error:
        warehouse.say(f"{warehouse.schema}.{source.view} was not made, the rows are stored: {one_line(str(error))}")


def _wanted(warehouse: Warehouse, source: Source) -> bool:
    with warehouse.reading() as connection:
        sources = all_kinds(connection) if source == GROUPS else [source]
        if all(table_exists(connection, each.catalogue) for each in sources):
            return False
        rows = count(connection, f"select count(*) from {source.rows}")
    if rows > MOST_ROWS:
        warehouse.say(
            f"{warehouse.schema}.{source.view} is not made yet, since {rows:,} rows take a while to catalogue: "
            f"materialize the asset {source.catalogue}"
        )
    return 0 < rows <= MOST_ROWS
