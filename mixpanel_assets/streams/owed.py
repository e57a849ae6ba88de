"""Nothing on record: what is said where neither the DuckDB file nor Dagster's history tells what is missing.

What is still to be fetched again is said by both, each stream's owed.py puts them together. A sync in an instance that
is not kept, as in CI, leaves word in the DuckDB file alone. A file that version 0.1.0 wrote says nothing; and a sync of
events that stored nothing at all leaves word in the history alone.
"""

import dagster as dg

from mixpanel_assets.errors import ConfigurationError
from mixpanel_assets.storage.warehouse import Warehouse, table_exists

# In the metadata of a materialization: where it was stored.
STORED_IN = "Database"


class NoRecordError(ConfigurationError):
    """Nothing tells what earlier syncs brought, so nothing can be said to be owed, or not to be."""


def no_record(instance: dg.DagsterInstance, asset: dg.AssetKey, warehouse: Warehouse, command: str) -> NoRecordError:
    """The error that names what was looked at, and the command that fetches anew."""
    return NoRecordError(
        f"no sync of {asset.to_user_string()} is on record, neither in {instance.root_directory} nor in "
        f"{warehouse.name}: name those of the sync with DAGSTER_HOME and MP_DATABASE, or fetch anew ({command})"
    )


def refuse_other_database(
    instance: dg.DagsterInstance, asset: dg.AssetKey, warehouse: Warehouse, missing_table: str
) -> None:
    """See that what is fetched again comes to where the last sync stored the rest: in another database it would stand
    alone, and nothing would be owed any more.

    Raises:
        ConfigurationError: the last sync stored elsewhere.
    """
    with warehouse.reading_if_there() as connection:
        if connection is not None and table_exists(connection, missing_table):
            return
    event = instance.get_latest_materialization_event(asset)
    if event is None or event.asset_materialization is None:
        return
    # What says where it was stored has left that table there.
    stored_in = event.asset_materialization.metadata.get(STORED_IN)
    if stored_in is not None:
        name = asset.to_user_string()
        raise ConfigurationError(
            f"the last sync of {name} stored in {stored_in.value}, and {warehouse.name} has nothing of it: set "
            f"MP_DATABASE to that, or sync {name} anew"
        )
