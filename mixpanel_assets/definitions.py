"""The code location: what Dagster finds here. Wiring only; every part is made in the module named after it."""

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from mixpanel_assets import partitions
from mixpanel_assets.alerts import FailedRun, alert_on_failure
from mixpanel_assets.executor import threaded_executor
from mixpanel_assets.io_manager_keys import HANDLES, WAREHOUSE
from mixpanel_assets.io_managers import HandleIOManager, WarehouseIOManager
from mixpanel_assets.jobs import jobs
from mixpanel_assets.properties.assets import event_properties, profile_properties
from mixpanel_assets.properties.checks import PROPERTY_CHECKS
from mixpanel_assets.resources import HistoryResource, MixpanelResource, StagingResource, WarehouseResource
from mixpanel_assets.schedules import HOURLY, LOOKBACK_DAYS, hourly_schedule
from mixpanel_assets.sensors import SENSORS, retry_sensor
from mixpanel_assets.streams.all import STREAMS
from mixpanel_assets.streams.stream import Stream

# The hourly schedule may fail twice before anybody has to look; a day without a sync is a failure.
FRESHNESS = dg.FreshnessPolicy.time_window(warn_window=timedelta(hours=3), fail_window=timedelta(hours=24))


def build_defs(
    *,
    duckdb_path: str = "",
    read_copy: str = "",
    staging_folder: str = "",
    executor: dg.ExecutorDefinition | None = None,
    resources: Mapping[str, Any] | None = None,
    on_failure: Callable[[FailedRun], object] | None = None,
    lookback_days: int = LOOKBACK_DAYS,
    cron: str = HOURLY,
    freshness: dg.FreshnessPolicy | None = FRESHNESS,
    owners: Sequence[str] = ("team:data",),
    streams: Sequence[Stream] = STREAMS,
) -> dg.Definitions:
    """The definitions, with parts of your own where you want them.

    Args:
        duckdb_path: DuckDB file; default: MP_DUCKDB_PATH, or `mixpanel_data.duckdb` in DAGSTER_HOME.
        read_copy: A copy of the DuckDB file for readers, renewed after each sync; default: MP_READ_COPY where
            `duckdb_path` is not given, or none.
        staging_folder: Where fetched pages wait; default: `staging` in DAGSTER_HOME.
        executor: What runs the steps, of the jobs here and of all assets of the code location; run config
            `execution.config` follows its schema. Without one the jobs run on `threaded_executor`, and assets that are
            materialized on that of the location, which may be another's when definitions are merged.
        resources: Resources that replace or join the standard ones, by key.
        on_failure: Called once for each failed run, partial failures included; it may mail, post or page.
        lookback_days: Days before today that the scheduled sync of events fetches again, for those that come late.
        cron: When the schedules start their syncs, e.g. "7 * * * *" to keep away from the full hour.
        freshness: How old a sync may get before the UI warns; None: as old as it likes.
        owners: Who answers for the assets: `team:<name>` or mail addresses.
        streams: Which kinds of data; profiles and events are always among them.
    """
    staging = StagingResource(folder=staging_folder)
    synced = [_dressed(asset, freshness, owners) for asset in (stream.asset() for stream in streams)]
    derived = [_dressed(asset, None, owners) for asset in (profile_properties, event_properties)]
    return dg.Definitions(
        assets=_with_code([*synced, *derived]),
        asset_checks=[*(stream.checks for stream in streams), *PROPERTY_CHECKS],
        jobs=jobs(streams, executor or threaded_executor),
        schedules=[hourly_schedule(stream, lookback_days, cron) for stream in streams],
        sensors=[*map(retry_sensor, streams), *SENSORS, alert_on_failure(on_failure)],
        executor=executor,
        resources={
            "mixpanel": MixpanelResource(),
            "staging": staging,
            "history": HistoryResource(),
            "warehouse": WarehouseResource(database=duckdb_path, read_copy=read_copy),
            WAREHOUSE: WarehouseIOManager(database=duckdb_path, read_copy=read_copy),
            HANDLES: HandleIOManager(staging=staging),
            **(resources or {}),
        },
    )


def _dressed(
    asset: dg.AssetsDefinition, freshness: dg.FreshnessPolicy | None, owners: Sequence[str]
) -> dg.AssetsDefinition:
    """The asset with what is chosen in `build_defs`, and what a graph asset cannot be given where it is defined."""
    owned = asset.map_asset_specs(lambda spec: spec.replace_attributes(owners=owners))
    if freshness is None:
        return owned
    return owned.map_asset_specs(lambda spec: dg.apply_freshness_policy(spec, freshness))


def _with_code(assets: Sequence[dg.AssetsDefinition]) -> Sequence[Any]:
    """The assets with a link to their source."""
    with warnings.catch_warnings():
        # It says so in every process that loads this; Dagster's minor is pinned.
        warnings.simplefilter("ignore", dg.BetaWarning)
        return dg.with_source_code_references(assets)


@functools.lru_cache(maxsize=1)
def _own_defs(start_and_zone: tuple[str, str]) -> dg.Definitions:
    return build_defs(executor=threaded_executor)


if TYPE_CHECKING:
    defs: dg.Definitions


def __getattr__(name: str) -> dg.Definitions:
    """`defs`, made when it is asked for: the days of events are what the environment says then, not at the import."""
    if name != "defs":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _own_defs(partitions.start_and_zone())


def __dir__() -> list[str]:
    return sorted({*globals(), "defs"})
