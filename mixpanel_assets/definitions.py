"""The code location: what Dagster finds here. Wiring only; every part is made in the module named after it."""

import functools
import json
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from mixpanel_assets import partitions
from mixpanel_assets.alerts import FailedRun, alert_on_failure
from mixpanel_assets.errors import ConfigurationError
from mixpanel_assets.executor import threaded_executor
from mixpanel_assets.identities.assets import identities_asset
from mixpanel_assets.io_manager_keys import HANDLES, WAREHOUSE
from mixpanel_assets.io_managers import HandleIOManager, WarehouseIOManager
from mixpanel_assets.jobs import history_job, jobs
from mixpanel_assets.projects import CopiedProject, copied_project
from mixpanel_assets.properties.assets import property_assets
from mixpanel_assets.properties.checks import property_checks
from mixpanel_assets.properties.sources import SOURCES
from mixpanel_assets.resources import HistoryResource, MixpanelResource, StagingResource, WarehouseResource
from mixpanel_assets.schedules import HOURLY, LOOKBACK_DAYS, history_schedule, hourly_schedule
from mixpanel_assets.sensors import dead_runs_sensor, properties_sensor, retry_sensor
from mixpanel_assets.settings import Variables
from mixpanel_assets.streams.all import STREAMS
from mixpanel_assets.streams.graph import source_key
from mixpanel_assets.streams.stream import Stream

# The hourly schedule may fail twice before anybody has to look; a day without a sync is a failure.
FRESHNESS = dg.FreshnessPolicy.time_window(warn_window=timedelta(hours=3), fail_window=timedelta(hours=24))


def build_defs(
    *,
    name: str = "",
    key_prefix: str | Sequence[str] = "",
    schema: str = "",
    username: dg.EnvVar | None = None,
    secret: dg.EnvVar | None = None,
    project_id: int | str | dg.EnvVar = "",
    workspace_id: int | str | dg.EnvVar = "",
    region: str | dg.EnvVar = "",
    query_url: str | dg.EnvVar = "",
    export_url: str | dg.EnvVar = "",
    app_url: str | dg.EnvVar = "",
    timezone: str | dg.EnvVar = "",
    events_start_date: str | dg.EnvVar = "",
    event_times: str | dg.EnvVar = "",
    groups: Mapping[str, int | str] | dg.EnvVar | None = None,
    include_properties: Sequence[str] | dg.EnvVar | None = None,
    exclude_properties: Sequence[str] | dg.EnvVar | None = None,
    hash_properties: Sequence[str] | dg.EnvVar | None = None,
    duckdb_path: str = "",
    data_path: str = "",
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
    """The definitions, with parts of your own where you want them; of several Mixpanel projects, if each but one has a
    name: `Definitions.merge(build_defs(), build_defs(name="eu", project_id=2, secret=EnvVar("EU_SECRET"), ...))`.

    Args:
        name: Tells the project's jobs, pools, sensors, resources and op names from another's: each ends with `_` and
            it, as in `sync_profiles_eu`. Of small letters, digits and _. Default: none, as the documentation has it.
        key_prefix: What the asset keys begin with, parts with / between; default: `mixpanel`, or `mixpanel_<name>`.
        schema: Of the tables in DuckDB; default: `mixpanel`, or `mixpanel_<name>`.
        username: Variable with the service account's name; default: MP_USERNAME.
        secret: Variable with its secret; default: MP_SECRET. A secret as text is refused.
        project_id: Number of the Mixpanel project; default: MP_PROJECT_ID. A project with a name needs it.
        workspace_id: Number of the Data View to read, where the project has them; default: MP_WORKSPACE_ID.
        region: us, eu or in; default: MP_REGION.
        query_url: Replaces the region's query API; default: MP_QUERY_URL, unless a region is given.
        export_url: Replaces the region's raw export; default: MP_EXPORT_URL, unless a region is given.
        app_url: Replaces the region's App API; default: MP_APP_URL, unless a region is given.
        timezone: The project's; default: MP_TIMEZONE.
        events_start_date: First day of events; default: MP_EVENTS_START_DATE.
        event_times: What `time` of the events is, utc or project; default: MP_EVENT_TIMES.
        groups: Which kinds of groups: what each is called, and its data_group_id; default: MP_GROUPS, which says
            nothing of a project with a name.
        include_properties: The properties that may be kept, of all that comes; default: MP_INCLUDE_PROPERTIES.
        exclude_properties: Those that are not kept, in place of MP_EXCLUDE_PROPERTIES.
        hash_properties: Those that are kept as hashes, in place of MP_HASH_PROPERTIES.
        duckdb_path: DuckDB file, or a DuckLake as `ducklake:...`; default: MP_DATABASE, or `mixpanel_data.duckdb` in
            DAGSTER_HOME.
        data_path: Where the data of that DuckLake lie, a folder or `s3://...`; default: beside its catalogue, if that
            is a file.
        read_copy: A copy of the DuckDB file for readers, renewed after each sync; default: MP_READ_COPY where
            `duckdb_path` is not given, or none.
        staging_folder: Where fetched pages wait; default: `staging` in DAGSTER_HOME. A project with a name has a
            folder of its own in it.
        executor: What runs the steps, of the jobs here and of all assets of the code location; run config
            `execution.config` follows its schema. Without one the jobs run on `threaded_executor`, and assets that are
            materialized on that of the location, which may be another's when definitions are merged.
        resources: Resources that replace or join the standard ones, by key. Those of a project with a name are named by
            the keys of the project without.
        on_failure: Called once for each failed run of the project's jobs and assets, partial failures included; it may
            mail, post or page.
        lookback_days: Days before today that the scheduled sync of events fetches again, for those that come late.
        cron: When the schedules start their syncs, e.g. "7 * * * *" to keep away from the full hour.
        freshness: How old a sync may get before the UI warns; None: as old as it likes.
        owners: Who answers for the assets: `team:<name>` or mail addresses.
        streams: Which kinds of data; profiles and events are always among them.

    Raises:
        ConfigurationError: a name or a setting cannot be used; one line that says which.
    """
    if lookback_days < 0:
        raise ConfigurationError(f"lookback_days must be 0 or more days before today, not {lookback_days}")
    settings = {
        "MP_USERNAME": username,
        "MP_SECRET": secret,
        "MP_PROJECT_ID": project_id,
        "MP_WORKSPACE_ID": workspace_id,
        "MP_REGION": region,
        "MP_QUERY_URL": query_url,
        "MP_EXPORT_URL": export_url,
        "MP_APP_URL": app_url,
        "MP_TIMEZONE": timezone,
        "MP_EVENTS_START_DATE": events_start_date,
        "MP_EVENT_TIMES": event_times,
        "MP_GROUPS": json.dumps(dict(groups)) if isinstance(groups, Mapping) else groups,
        "MP_INCLUDE_PROPERTIES": _listed(include_properties),
        "MP_EXCLUDE_PROPERTIES": _listed(exclude_properties),
        "MP_HASH_PROPERTIES": _listed(hash_properties),
    }
    project = copied_project(name, key_prefix, schema, _variables(settings))
    own = [stream if stream.project == project else stream.of(project) for stream in streams]
    synced = [_with_specs(asset, freshness, owners) for asset in (stream.asset() for stream in own)]
    names = {stream.name for stream in own}
    catalogued = [source for source in SOURCES if source.table in names]
    derived = [
        _with_specs(asset, None, owners) for asset in (*property_assets(project, catalogued), identities_asset(project))
    ]
    standard = _resources(
        project, WarehouseResource(database=duckdb_path, data_path=data_path, read_copy=read_copy), staging_folder
    )
    _check_name(project, standard, resources or {})
    own_jobs = [*jobs(own, executor or threaded_executor), history_job(project, executor or threaded_executor)]
    return dg.Definitions(
        assets=[_source(project), *_with_code([*synced, *derived]), *_histories(own, owners)],
        asset_checks=[*(stream.checks for stream in own), *property_checks(project, catalogued)],
        jobs=own_jobs,
        schedules=[*(hourly_schedule(stream, lookback_days, cron) for stream in own), history_schedule(project)],
        sensors=[
            *map(retry_sensor, own),
            dead_runs_sensor(project),
            properties_sensor(project, catalogued),
            alert_on_failure(on_failure, project, {job.name for job in own_jobs}),
        ],
        executor=executor,
        resources={
            **{project.called(key): resource for key, resource in standard.items()},
            **{project.called(key) if key in standard else key: own for key, own in (resources or {}).items()},
        },
    )


def _listed(names: Sequence[str] | dg.EnvVar | None) -> str | dg.EnvVar | None:
    """Names as their variable would have them; no names are none given."""
    if names is None or isinstance(names, (str, dg.EnvVar)):
        return names
    return json.dumps(list(names)) if names else None


def _variables(settings: Mapping[str, object]) -> Variables:
    """What was given for the `MP_*` variables: other variables, or values.

    Raises:
        ConfigurationError: an account is written down, or half of one is named.
    """
    for name in ("MP_USERNAME", "MP_SECRET"):
        if settings[name] is not None and not isinstance(settings[name], dg.EnvVar):
            argument = name.removeprefix("MP_").lower()
            raise ConfigurationError(f'{argument} must be dagster.EnvVar("NAME"): what the variable holds stays there')
    if (settings["MP_USERNAME"] is None) != (settings["MP_SECRET"] is None):
        raise ConfigurationError("username and secret belong together: give both, or neither for MP_USERNAME's account")
    read_from = {name: given.env_var_name for name, given in settings.items() if isinstance(given, dg.EnvVar)}
    given = {name: str(value).strip() for name, value in settings.items() if value and name not in read_from}
    return Variables(given, read_from)


def _check_name(project: CopiedProject, standard: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Refuse a name for the environment's project once more, and one whose resources would take the place of others.

    Raises:
        ConfigurationError: in one line.
    """
    if not project.name:
        return
    if "MP_PROJECT_ID" not in project.variables and "mixpanel" not in given:
        raise ConfigurationError(f"project {project.name!r} needs its project_id: a number, or dagster.EnvVar(...)")
    taken = next((key for key in map(project.called, standard) if key in standard), None)
    if taken:
        raise ConfigurationError(f"name {project.name!r}: {taken!r} is the key of a resource already, choose another")
    staging = given.get("staging")
    if isinstance(staging, StagingResource) and staging.project != project.name:
        # The files of a run lie in a folder of its name, and both projects may be in one run.
        raise ConfigurationError(f"resource staging: of project {project.name!r} it needs project={project.name!r}")


def _resources(
    project: CopiedProject, warehouse: WarehouseResource, staging_folder: str
) -> dict[str, dg.ConfigurableResource[Any] | dg.ConfigurableIOManagerFactory[Any]]:
    """The standard ones, by the keys that they have in the project without a name."""
    given, staging = project.variables.given, StagingResource(folder=staging_folder, project=project.name)
    return {
        "mixpanel": MixpanelResource(
            project_id=given.get("MP_PROJECT_ID", ""),
            region=given.get("MP_REGION", ""),
            query_url=given.get("MP_QUERY_URL", ""),
            export_url=given.get("MP_EXPORT_URL", ""),
            app_url=given.get("MP_APP_URL", ""),
            workspace_id=int(given["MP_WORKSPACE_ID"]) if "MP_WORKSPACE_ID" in given else None,
            variables=dict(project.variables.read_from),
        ),
        "staging": staging,
        "history": HistoryResource(),
        "warehouse": warehouse,
        WAREHOUSE: WarehouseIOManager(
            database=warehouse.database, data_path=warehouse.data_path, read_copy=warehouse.read_copy
        ),
        HANDLES: HandleIOManager(staging=staging),
    }


def _source(project: CopiedProject) -> dg.AssetSpec:
    return dg.AssetSpec(
        source_key(project),
        group_name=project.group,
        kinds={"mixpanel"},
        description="The project in Mixpanel. It is read, and made or changed by nothing here.",
    )


def _histories(streams: Iterable[Stream], owners: Sequence[str]) -> list[dg.AssetSpec]:
    """What is stored beside a stream's table, where a sync was told to: no run makes it alone."""
    return [
        dg.AssetSpec(
            stream.project.key(stream.history),
            deps=[stream.key],
            group_name=stream.project.group,
            kinds={"duckdb"},
            tags={"personal_data": "true"},
            owners=owners,
            metadata={"dagster/table_name": f"{stream.project.schema}.{stream.history}"},
            description=(
                f"What each of {stream.key.to_user_string()} was, and when: one row per period. It begins with a sync "
                "whose setting `history` is true, and is written with each sync from then on."
            ),
        )
        for stream in streams
        if stream.history
    ]


def _with_specs(
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
