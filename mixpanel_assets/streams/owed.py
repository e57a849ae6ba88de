"""Nothing on record: what is said where neither the DuckDB file nor Dagster's history tells what is missing.

What is still to be fetched again is said by both, each stream's owed.py puts them together. A sync in an instance that
is not kept, as in CI, leaves word in the DuckDB file alone. A file that version 0.1.0 wrote says nothing; and a sync of
events that stored nothing at all leaves word in the history alone.
"""

import dagster as dg

from mixpanel_assets.errors import ConfigurationError
from mixpanel_assets.storage.warehouse import Warehouse


class NoRecordError(ConfigurationError):
    """Nothing tells what earlier syncs brought, so nothing can be said to be owed, or not to be."""


def no_record(instance: dg.DagsterInstance, asset: dg.AssetKey, warehouse: Warehouse, command: str) -> NoRecordError:
    """The error that names what was looked at, and the command that fetches anew."""
    return NoRecordError(
        f"no sync of {asset.to_user_string()} is on record, neither in {instance.root_directory} nor in "
        f"{warehouse.name}: name those of the sync with DAGSTER_HOME and MP_DATABASE, or fetch anew ({command})"
    )
