"""The code location: what Dagster finds here. Wiring only; every part is made in the module named after it."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from mixpanel_assets.assets.events import events
from mixpanel_assets.assets.profiles import profiles
from mixpanel_assets.checks import profiles_checks
from mixpanel_assets.event_checks import EVENT_CHECKS
from mixpanel_assets.executor import threaded_executor
from mixpanel_assets.io_managers import HandleIOManager, WarehouseIOManager
from mixpanel_assets.jobs import retry_failed_event_ranges, retry_failed_profile_pages
from mixpanel_assets.resources import MixpanelResource, StagingResource, WarehouseResource


def build_defs(
    *,
    duckdb_path: str = "",
    staging_folder: str = "",
    executor: dg.ExecutorDefinition = threaded_executor,
    resources: Mapping[str, Any] | None = None,
) -> dg.Definitions:
    """The definitions, with parts of your own where you want them.

    Args:
        duckdb_path: DuckDB file; default: MP_DUCKDB_PATH, or `mixpanel.duckdb` in DAGSTER_HOME.
        staging_folder: Where fetched pages wait; default: `staging` in DAGSTER_HOME.
        executor: What runs the steps; run config `execution.config` follows its schema.
        resources: Resources that replace or join the standard ones, by key.
    """
    staging = StagingResource(folder=staging_folder)
    return dg.Definitions(
        assets=[profiles, events],
        asset_checks=[profiles_checks, *EVENT_CHECKS],
        jobs=[retry_failed_event_ranges, retry_failed_profile_pages],
        executor=executor,
        resources={
            "mixpanel": MixpanelResource(),
            "staging": staging,
            "warehouse": WarehouseResource(database=duckdb_path),
            "warehouse_io_manager": WarehouseIOManager(database=duckdb_path),
            "io_manager": HandleIOManager(staging=staging),
            **(resources or {}),
        },
    )


defs = build_defs()
