"""Dagster's clothes for the client, the staging folder and the warehouse. What they do is in the core modules.

No field holds a secret: credentials are read from the environment when a run needs them, so they are in no run config,
no `repr` and no instance.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from typing import TYPE_CHECKING, Any, cast

import dagster as dg
import sqlalchemy as db
from dagster_duckdb import DuckDBResource
from pydantic import Field, PrivateAttr

from mixpanel_assets import local_paths, postgres, private_files, settings
from mixpanel_assets.client.client import MixpanelClient
from mixpanel_assets.client.kept_limits import KeptLimits, LimitFiles
from mixpanel_assets.client.request_limits import RequestLimits
from mixpanel_assets.client.retry import RetryPolicy
from mixpanel_assets.database_address import LakeAddress, database_address
from mixpanel_assets.errors import ConfigurationError
from mixpanel_assets.history import Retention, delete_old_runs
from mixpanel_assets.projects import CopiedProject
from mixpanel_assets.settings import SCHEMA, Variables
from mixpanel_assets.stopping import stop_requested
from mixpanel_assets.storage.duckdb_file import DuckDBFile
from mixpanel_assets.storage.ducklake import DuckLake
from mixpanel_assets.storage.file_name import advised, under_present_name
from mixpanel_assets.storage.staging import PROJECTS_FOLDER, Staging
from mixpanel_assets.storage.staging_places import staging_at
from mixpanel_assets.storage.warehouse import Say, Warehouse

if TYPE_CHECKING:
    import duckdb


class MixpanelResource(dg.ConfigurableResource[MixpanelClient]):
    """The Mixpanel project that the `MP_*` variables name, or that others do."""

    project_id: str = Field(default="", description="The project's number; default: MP_PROJECT_ID.")
    region: str = Field(default="", description="us, eu or in; default: MP_REGION.")
    query_url: str = Field(default="", description="Replaces the region's query API; default: MP_QUERY_URL.")
    export_url: str = Field(default="", description="Replaces the region's raw export; default: MP_EXPORT_URL.")
    app_url: str = Field(default="", description="Replaces the region's App API; default: MP_APP_URL.")
    variables: dict[str, str] = Field(
        default={},
        description=(
            'Environment variables that are read in place of others, e.g. {"MP_SECRET": "EU_SECRET"}: their names '
            "alone are kept here."
        ),
    )
    max_attempts: int = Field(default=5, ge=1, description="Requests for one page or chunk at the most.")
    retry_base_seconds: float = Field(default=2.0, ge=0, description="First wait before a retry; it doubles.")
    max_wait_seconds: float = Field(
        default=120.0,
        ge=0,
        description="Longest wait that is obeyed when Mixpanel asks for one; beyond it, the page fails.",
    )
    hourly_queries: int | None = Field(
        default=None, ge=1, description="The project's queries per hour, if not 60; default: MP_HOURLY_QUERIES."
    )
    hourly_exports: int | None = Field(
        default=None, ge=1, description="The project's exports per hour, if not 60; default: MP_HOURLY_EXPORTS."
    )
    workspace_id: int | None = Field(
        default=None,
        ge=1,
        description="Number of the Data View to read, where the project has them; default: MP_WORKSPACE_ID.",
    )
    connect_timeout_seconds: float = Field(default=10.0, gt=0, description="Longest wait for a connection.")
    query_read_timeout_seconds: float = Field(
        default=120.0, gt=0, description="Longest silence of a page, before its first byte or between two."
    )
    export_read_timeout_seconds: float = Field(
        default=1200.0,
        gt=0,
        description="Longest silence of an export; beyond it, a range of several days is asked for in halves.",
    )
    query_deadline_seconds: float = Field(
        default=600.0, gt=0, description="Longest time for a page, from its request to its last byte."
    )
    export_deadline_seconds: float = Field(
        default=7200.0, gt=0, description="Longest time for an export, from its request to its last byte."
    )
    max_page_mb: int = Field(default=1024, ge=1, description="Refuse a page that is larger when unpacked.")
    max_line_mb: int = Field(default=64, ge=1, description="Refuse a longer line of an export, or row of a page.")
    max_export_mb: int = Field(default=20480, ge=1, description="Refuse an export that is larger when unpacked.")
    _client: MixpanelClient | None = PrivateAttr(default=None)
    _kept: KeptLimits | None = PrivateAttr(default=None)

    def client(self, on_quota: str = "stop") -> MixpanelClient:
        """The client of this run; with `on_quota` "wait" it waits where the hour is spent, else it gives up.

        Raises:
            ConfigurationError: credentials are missing.
        """
        if self._client is None:
            variables = self._variables()
            project = settings.project(self.workspace_id, variables)
            kept = self._kept or kept_limits(None)
            policy = RetryPolicy(
                max_attempts=self.max_attempts,
                base_seconds=self.retry_base_seconds,
                max_wait_seconds=self.max_wait_seconds,
            )
            self._client = MixpanelClient(
                project,
                policy=policy,
                stop=stop_requested(),
                # Mixpanel counts the starts of each project for itself.
                export_starts=kept.export_starts(project.project_id, further="MP_PROJECT_ID" in variables),
                schema_starts=kept.schema_starts(),
                ledger=kept.ledger(stop_requested()),
                hourly_queries=self.hourly_queries or settings.hourly_queries(variables),
                hourly_exports=self.hourly_exports or settings.hourly_exports(variables),
                hash_salt=settings.hash_salt(variables),
                limits=self._limits(),
            )
        return self._client.waiting_for_quota() if on_quota == "wait" else self._client

    def _variables(self) -> Variables:
        own = {
            "MP_PROJECT_ID": self.project_id,
            "MP_REGION": self.region,
            "MP_QUERY_URL": self.query_url,
            "MP_EXPORT_URL": self.export_url,
            "MP_APP_URL": self.app_url,
        }
        return Variables({name: value for name, value in own.items() if value}, self.variables)

    def _limits(self) -> RequestLimits:
        return RequestLimits(**{each.name: getattr(self, each.name) for each in fields(RequestLimits)})

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        # A client belongs to one run: its waits end with that run's wish to stop.
        self._client = None
        self._kept = kept_limits(context.instance)

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        if self._client is not None:
            self._client.close()
        if self._kept is not None:
            self._kept.close()


def kept_limits(instance: dg.DagsterInstance | None) -> KeptLimits:
    """Where the limits are kept that runs of an instance share: in its Postgres, or in DAGSTER_HOME."""
    storage = instance.event_log_storage if instance else None
    if not postgres.is_postgres(storage):
        return LimitFiles(settings.home())
    from mixpanel_assets.client.limit_tables import LimitTables

    return LimitTables(postgres.engine_of(storage, poolclass=db.QueuePool, pool_size=1, pool_pre_ping=True))


class StagingResource(dg.ConfigurableResource["StagingResource"]):
    """Where pages wait between Mixpanel and DuckDB."""

    folder: str = Field(
        default="",
        description="Folder or bucket (`s3://...`) for staged files; default: MP_STAGING_URL, or `staging` in "
        "DAGSTER_HOME.",
    )
    project: str = Field(default="", description="The project of a code location whose files have a folder within it.")

    def place(self) -> Staging:
        """The folder or the bucket.

        Raises:
            ConfigurationError: neither a folder of this machine nor a bucket.
        """
        within = f"{PROJECTS_FOLDER}/{self.project}" if self.project else ""
        if self.folder:
            return staging_at("folder of staging", self.folder, within)
        return staging_at("MP_STAGING_URL", settings.staging_place(), within)


class HistoryResource(dg.ConfigurableResource["HistoryResource"]):
    """How long Dagster keeps the runs of a project's assets, and a DuckLake its earlier states."""

    keep_days: int = Field(
        default=30, ge=0, description="Runs, and states of a DuckLake, that are older are deleted; 0: none for its age."
    )
    max_mb: int = Field(
        default=800, ge=0, description="The oldest runs are deleted while the logs of all take more MB; 0: none for it."
    )

    def delete_old_runs(self, context: dg.OpExecutionContext, project: CopiedProject) -> None:
        """Delete what a project has beyond that; with a word if there was something."""
        deleted = delete_old_runs(context.instance, Retention(self.keep_days, self.max_mb), project)
        if deleted:
            context.log.info(
                f"deleted {deleted} runs from Dagster's history, older than {self.keep_days} days or beyond "
                f"{self.max_mb} MB"
            )

    def delete_old_states(self, warehouse: Warehouse) -> None:
        """Delete what the tables were longer ago, where that is kept."""
        if self.keep_days:
            warehouse.forget_states(self.keep_days)


DATABASE = "DuckDB file, or a DuckLake as `ducklake:...`; default: MP_DATABASE."
DATA_PATH = "Where the data of the DuckLake lie that `database` names: a folder, or `s3://...`."
READ_COPY = "A copy of the file for readers, renewed after each sync; default: MP_READ_COPY, or none."


class WarehouseResource(DuckDBResource):
    """Where the tables are, for ops and checks that look at them, and as dagster-duckdb's resource for assets of your
    own. Our tables only the IO manager writes."""

    database: str = Field(default="", description=DATABASE)
    data_path: str = Field(default="", description=DATA_PATH)
    read_copy: str = Field(default="", description=READ_COPY)

    @contextmanager
    def get_connection(self) -> "Iterator[duckdb.DuckDBPyConnection]":
        """A connection as dagster-duckdb opens it, to the file that the settings name; or one to the DuckLake."""
        warehouse = warehouse_at(self.database, print, data_path=self.data_path)
        if isinstance(warehouse, DuckLake):
            with warehouse.connection() as connection:
                yield connection
            return
        file = DuckDBResource(database=warehouse.name, connection_config=self.connection_config)
        with file.get_connection() as connection:
            yield connection

    def open(self, log: dg.DagsterLogManager, schema: str = SCHEMA) -> Warehouse:
        """The warehouse with the tables of a schema; waits for a lock are said to `log`."""
        warehouse = warehouse_at(self.database, log.warning, self.read_copy, schema, self.data_path)
        if isinstance(warehouse, DuckDBFile) and warehouse.path.parent == settings.home():
            # Nobody has to make our own folder; that it cannot be made is the warehouse's to say.
            with suppress(OSError):
                private_files.make_folder(warehouse.path.parent)
        return warehouse

    def open_for_sync(self, log: dg.DagsterLogManager, schema: str = SCHEMA) -> Warehouse:
        """As `open`, once a file has the name that it should have; what became of its former one is said to `log`."""
        warehouse = self.open(log, schema)
        if not isinstance(warehouse, DuckDBFile):
            return warehouse
        if self.database:
            return advised(warehouse)
        former = settings.former_duckdb_path()
        return under_present_name(warehouse, former) if former else advised(warehouse)


def warehouse_at(
    database: str, say: Say, read_copy: str = "", schema: str = SCHEMA, data_path: str = ""
) -> DuckDBFile | DuckLake:
    """The configured database with its configured copy, or the environment's with the environment's.

    Raises:
        ConfigurationError: neither a file of this machine nor a DuckLake.
    """
    place = database_address("database", database, "data_path", data_path) if database else settings.database()
    copy = local_paths.database_file("read_copy", read_copy) if read_copy else None
    if copy is None and not database:
        copy = settings.read_copy_path()
    if isinstance(place, LakeAddress):
        if copy:
            raise ConfigurationError("MP_READ_COPY is of a DuckDB file, and a DuckLake needs none: unset it")
        return DuckLake(place, say, schema)
    only_if_there = not database and place == settings.former_duckdb_path()
    return DuckDBFile(place, say, copy, only_if_there, schema)


class ProjectResources:
    """The resources of one project, for a step that requires them.

    Args:
        resources: What the context of the step or sensor calls so.
        project: Whose they are.
    """

    def __init__(self, resources: Any, project: CopiedProject) -> None:
        self._resources = resources
        self._project = project

    @property
    def mixpanel(self) -> MixpanelResource:
        """Its client."""
        return cast("MixpanelResource", self._of("mixpanel"))

    @property
    def staging(self) -> StagingResource:
        """Its staging folder."""
        return cast("StagingResource", self._of("staging"))

    @property
    def warehouse(self) -> WarehouseResource:
        """Where its tables are."""
        return cast("WarehouseResource", self._of("warehouse"))

    @property
    def history(self) -> HistoryResource:
        """How long its runs are kept."""
        return cast("HistoryResource", self._of("history"))

    def _of(self, what: str) -> object:
        return getattr(self._resources, self._project.called(what))
