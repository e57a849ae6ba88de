"""What is still to be fetched again of the events: by the table of missing days, and by Dagster's history."""

import dagster as dg

from mixpanel_assets.storage.warehouse import Warehouse
from mixpanel_assets.streams.events import reports
from mixpanel_assets.streams.events.missing import missing_days
from mixpanel_assets.streams.events.query import EventsQuery
from mixpanel_assets.streams.owed import no_record


def owed_days(
    instance: dg.DagsterInstance, asset: dg.AssetKey, warehouse: Warehouse, source: str | None = None
) -> dict[str, EventsQuery]:
    """Days of events that failed and have not come since, as ISO dates in order, each with what was asked of it.

    With a `source` those of other projects are left out.

    Raises:
        NoRecordError: no sync of events is on record.
        WarehouseError: the DuckDB file cannot be read.
    """
    with warehouse.reading_if_there() as connection:
        stored = missing_days(connection) if connection else None
    noted = reports.owed_days(instance, asset, source)
    if stored is None and not noted and not instance.has_asset_key(asset):
        raise no_record(instance, asset, warehouse, "mp fetch events --from DATE --to DATE --parallel")
    ours = {day: query for day, query in (stored or {}).items() if source is None or query.source in (None, source)}
    return dict(sorted({**noted, **ours}.items()))
