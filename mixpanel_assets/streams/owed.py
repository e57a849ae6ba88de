"""Nothing on record: what is said where neither the DuckDB file nor Dagster's history tells what is missing.

What is still to be fetched again is said by both, each stream's owed.py puts them together. A sync in an instance that
is not kept, as in CI, leaves word in the DuckDB file alone. A file that version 0.1.0 wrote says nothing; and a sync of
events that stored nothing at all leaves word in the history alone.
"""

from typing import TYPE_CHECKING

import dagster as dg

from mixpanel_assets.errors import ConfigurationError
from mixpanel_assets.postgres import is_postgres
from mixpanel_assets.storage.identity import identity
from mixpanel_assets.storage.warehouse import Warehouse, table_exists

if TYPE_CHECKING:
    import duckdb

# In the metadata of a materialization: where it was stored.
STORED_IN = "Database"
# The number of that, since hosts that share a history may each have one of that name.
WAREHOUSE_ID = "warehouse_id"


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
    # What says where it was stored has left that table there.
    if _said(event, STORED_IN):
        name = asset.to_user_string()
        raise ConfigurationError(
            f"the last sync of {name} stored in {_said(event, STORED_IN)}, and {warehouse.name} has nothing of it: set "
            f"MP_DATABASE to that, or sync {name} anew"
        )


def refuse_other_number(
    instance: dg.DagsterInstance,
    event: dg.EventLogEntry | None,
    connection: "duckdb.DuckDBPyConnection | None",
    warehouse: Warehouse,
) -> None:
    """See that what a sync says of itself is said of this database, and not of one with the same name on another host.

    Where hosts share a history, one that is not there is another host's; else somebody moved it away, and what it
    lacked may come into a new one.

    Raises:
        ConfigurationError: it stored elsewhere.
    """
    stored, here = _said(event, WAREHOUSE_ID), identity(connection) if connection is not None else None
    is_other = stored != here and (here is not None or is_postgres(instance.event_log_storage))
    if event is not None and stored and is_other:
        raise ConfigurationError(
            f"run {event.run_id[:8]} stored in {_said(event, STORED_IN)} of another host, or in one that lay there "
            f"before, and not in {warehouse.name} as it is: do this where that is, or sync anew here"
        )


def _said(event: dg.EventLogEntry | None, name: str) -> str:
    if event is None or event.asset_materialization is None:
        return ""
    found = event.asset_materialization.metadata.get(name)
    return str(found.value) if found else ""
