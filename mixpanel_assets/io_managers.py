"""Who stores what an op returns: rows through the one DuckDB IO manager, handles through the one for small objects.

What is written, and how, is said by the `store` of the shape that the rows come in, and by their load.py.
"""

import pickle
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, TypeAlias

import dagster as dg
from pydantic import Field, PrivateAttr

from mixpanel_assets.database_address import database_address
from mixpanel_assets.errors import MixpanelAssetsError
from mixpanel_assets.executor.endings import once_succeeded
from mixpanel_assets.identities import store as identities
from mixpanel_assets.identities.publish import IdentitiesOrder
from mixpanel_assets.properties import store as properties
from mixpanel_assets.properties.first_views import ensure_views
from mixpanel_assets.properties.former_groups import take_over
from mixpanel_assets.properties.publish import CatalogueOrder
from mixpanel_assets.properties.sources import SOURCES
from mixpanel_assets.resources import DATA_PATH, DATABASE, READ_COPY, StagingResource, warehouse_at
from mixpanel_assets.storage.identity import identity_made
from mixpanel_assets.storage.staging import HANDLES_FOLDER
from mixpanel_assets.storage.stored_projects import keep_to_project
from mixpanel_assets.storage.warehouse import Say, Warehouse
from mixpanel_assets.streams.events import store as events
from mixpanel_assets.streams.events.staged import StagedEvents
from mixpanel_assets.streams.owed import STORED_IN, WAREHOUSE_ID
from mixpanel_assets.streams.snapshot import store as snapshots
from mixpanel_assets.streams.snapshot.staged import StagedSnapshot

if TYPE_CHECKING:
    import duckdb


_Storable: TypeAlias = StagedSnapshot | StagedEvents | CatalogueOrder | IdentitiesOrder


class WarehouseIOManager(dg.ConfigurableIOManager):
    """Writes assets by DuckDB, each output in one transaction; lets go of staged files once it is committed."""

    database: str = Field(default="", description=DATABASE)
    data_path: str = Field(default="", description=DATA_PATH)
    read_copy: str = Field(default="", description=READ_COPY)
    preview_rows: int = Field(
        default=5,
        ge=0,
        description="Rows of the table shown with each sync; 0 where the UI and its event log should hold no profile.",
    )

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        if self.database:  # Refused before the first request, not when its rows are to be stored.
            database_address("database", self.database, "data_path", self.data_path)

    def handle_output(self, context: dg.OutputContext, obj: _Storable) -> None:
        warehouse = self._warehouse(context.log.warning, obj.schema)
        try:
            with _on_this_machine(obj) as here, warehouse.transaction() as connection:
                moved = take_over(connection)
                if isinstance(here, (StagedSnapshot, StagedEvents)):
                    keep_to_project(connection, here.table, here.source)
                metadata = {**self._store(connection, here, context.log), WAREHOUSE_ID: identity_made(connection)}
        except MixpanelAssetsError as error:
            # Dagster wraps it in its own words and a stack; here it is one line.
            context.log.error(str(error))
            raise
        if moved:
            context.log.warning(moved)
        table = f"{obj.schema}.{obj.table}"
        place = {STORED_IN: warehouse.name, "dagster/table_name": table}
        context.add_output_metadata({**metadata, "Query": f"SELECT * FROM {table}", **place})
        if isinstance(obj, (CatalogueOrder, IdentitiesOrder)):
            return
        if "history_rows" in metadata and isinstance(obj, StagedSnapshot):
            self._tell_of_history(context, obj, metadata)
        obj.drop()
        source = next((source for source in SOURCES if source.table == obj.table), None)
        if source is not None:  # What was stored can be queried by typed columns at once.
            ensure_views(self._warehouse(context.log.info, obj.schema), source)

    def _tell_of_history(self, context: dg.OutputContext, obj: StagedSnapshot, metadata: Mapping[str, Any]) -> None:
        """What was stored beside the asset, as an asset of its own."""
        table = obj.stream.history_table or ""
        said = {"dagster/row_count": metadata["history_rows"], "dagster/table_name": f"{obj.schema}.{table}"}
        said |= {name: metadata[name] for name in ("history_periods_begun", "history_removed")}
        context.log_event(dg.AssetMaterialization([*context.asset_key.path[:-1], table], metadata=said))

    def load_input(self, context: dg.InputContext) -> None:
        raise NotImplementedError("query the table through the `warehouse` resource instead of loading it")

    def _warehouse(self, say: Say, schema: str) -> Warehouse:
        return warehouse_at(self.database, say, self.read_copy, schema, self.data_path)

    def _store(
        self,
        connection: "duckdb.DuckDBPyConnection",
        obj: _Storable,
        log: dg.DagsterLogManager,
    ) -> Mapping[str, Any]:
        if isinstance(obj, StagedSnapshot):
            return snapshots.store(connection, obj, log, self.preview_rows)
        if isinstance(obj, StagedEvents):
            return events.store(connection, obj, log)
        if isinstance(obj, IdentitiesOrder):
            return identities.store(connection, obj, log)
        return properties.store(connection, obj, log)


def _on_this_machine(obj: _Storable) -> AbstractContextManager[_Storable]:
    """What is to be stored, with its files where DuckDB reads them, until the end of the block."""
    return obj.local() if isinstance(obj, StagedSnapshot | StagedEvents) else nullcontext(obj)


class HandleIOManager(dg.ConfigurableIOManager):
    """Keeps what ops hand on (plans, page results) in memory, and as files for a re-execution in another process.

    Dagster's own keeps them for ever and logs each read and write, some 5 ms apiece; these lie where fetched pages do,
    say nothing, and go when their run has succeeded; those of a run that failed, or of another executor than ours, when
    the next one begins.
    """

    staging: dg.ResourceDependency[StagingResource]
    _memory: dict[str, Any] = PrivateAttr(default_factory=dict)

    def setup_for_execution(self, context: dg.InitResourceContext) -> None:
        if context.run is not None:
            folder = f"{HANDLES_FOLDER}/{context.run.run_id}"
            once_succeeded(context.run.run_id, lambda: self.staging.place().delete_folder(folder))

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        key = _key(context)
        self.staging.place().put(key, pickle.dumps(obj))
        self._memory[key] = obj

    def load_input(self, context: dg.InputContext) -> Any:
        if context.upstream_output is None:
            raise ValueError("a handle has no upstream output")
        key = _key(context.upstream_output)
        if key not in self._memory:
            content = self.staging.place().get(key)
            if content is None:
                raise MixpanelAssetsError(
                    "what the earlier run left was deleted when a later one began: materialize anew instead of from "
                    "the failure"
                )
            try:
                self._memory[key] = pickle.loads(content)
            except (ImportError, AttributeError, pickle.UnpicklingError, EOFError):
                raise MixpanelAssetsError(
                    "what the earlier run left is of another version of mixpanel_assets: materialize anew instead of "
                    "from the failure"
                ) from None
        return self._memory[key]


def _key(context: dg.OutputContext) -> str:
    return "/".join([HANDLES_FOLDER, *context.get_identifier()])
