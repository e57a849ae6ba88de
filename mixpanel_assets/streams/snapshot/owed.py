"""What is still to be fetched again of a stream in pages: by its table of missing pages, or by Dagster's history."""

import dagster as dg

from mixpanel_assets.storage.warehouse import Warehouse
from mixpanel_assets.streams.owed import no_record
from mixpanel_assets.streams.snapshot.missing import MissingPages, missing_pages
from mixpanel_assets.streams.snapshot.reports import last_sync
from mixpanel_assets.streams.snapshot.stream import SnapshotStream


def owed_pages(
    instance: dg.DagsterInstance, stream: SnapshotStream, asset: dg.AssetKey, warehouse: Warehouse
) -> MissingPages:
    """The pages that the last sync lacks; their list is empty if it lacks none.

    Raises:
        NoRecordError: no sync is on record.
        WarehouseError: the DuckDB file cannot be read.
    """
    with warehouse.reading_if_there() as connection:
        stored = missing_pages(connection, stream) if connection else None
    if stored is not None:
        return stored
    event = instance.get_latest_materialization_event(asset)
    if event is None or event.asset_materialization is None:
        raise no_record(instance, asset, warehouse, f"mp fetch {stream.name} --parallel")
    return last_sync(stream, event.asset_materialization.metadata)
