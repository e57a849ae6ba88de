"""What is still to be fetched again: by the tables of what is missing, and by Dagster's history.

Belongs here: putting the two together, for the retries, `mp retry` and `mp status`. Does not belong here: what each of
them says (*/missing.py, */reports.py).

A sync in an instance that is not kept, as in CI, leaves word in the DuckDB file alone. A file that version 0.1.0 wrote
says nothing; and a sync of events that stored nothing at all leaves word in the history alone.
"""

import dagster as dg

from mixpanel_assets.errors import ConfigurationError
from mixpanel_assets.storage.warehouse import Warehouse
from mixpanel_assets.streams.events import reports as event_reports
from mixpanel_assets.streams.events.missing import missing_days
from mixpanel_assets.streams.events.query import EventsQuery
from mixpanel_assets.streams.profiles import reports as profile_reports
from mixpanel_assets.streams.profiles.missing import MissingPages, missing_pages


class NoRecordError(ConfigurationError):
    """Nothing tells what earlier syncs brought, so nothing can be said to be owed, or not to be."""


def owed_pages(instance: dg.DagsterInstance, asset: dg.AssetKey, warehouse: Warehouse) -> MissingPages:
    """The pages that the last sync of profiles lacks; their list is empty if it lacks none.

    Raises:
        NoRecordError: no sync of profiles is on record.
        WarehouseError: the DuckDB file cannot be read.
    """
    with warehouse.reading_if_there() as connection:
        stored = missing_pages(connection) if connection else None
    if stored is not None:
        return stored
    event = instance.get_latest_materialization_event(asset)
    if event is None or event.asset_materialization is None:
        raise NoRecordError(_unknown(instance, asset, warehouse, "mp fetch profiles --parallel"))
    last = profile_reports.last_profiles_sync(event.asset_materialization.metadata)
    return MissingPages(last.query, last.snapshot_id, last.failed_pages)


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
    noted = event_reports.owed_days(instance, asset, source)
    if stored is None and not noted and not instance.has_asset_key(asset):
        raise NoRecordError(_unknown(instance, asset, warehouse, "mp fetch events --from DATE --to DATE --parallel"))
    ours = {day: query for day, query in (stored or {}).items() if source is None or query.source in (None, source)}
    return dict(sorted({**noted, **ours}.items()))


def _unknown(instance: dg.DagsterInstance, asset: dg.AssetKey, warehouse: Warehouse, command: str) -> str:
    return (
        f"no sync of {asset.to_user_string()} is on record, neither in {instance.root_directory} nor in "
        f"{warehouse.path}: name those of the sync with DAGSTER_HOME and MP_DUCKDB_PATH, or fetch anew ({command})"
    )
