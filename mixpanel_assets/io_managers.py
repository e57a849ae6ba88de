"""Who stores what an op returns: rows through the one DuckDB IO manager, handles through the one for small objects.

`WarehouseIOManager` keeps the interface of dagster-duckdb's IO manager and makes it atomic: everything it does for one
output happens in one transaction (upstream deletes, then inserts, each for itself). What is written, and how, is
streams/*/load.py's.
"""

import json
import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, cast

import dagster as dg
import duckdb
from dagster._core.storage.db_io_manager import DbIOManager, DbTypeHandler, TableSlice
from dagster_duckdb import DuckDBIOManager
from dagster_duckdb.io_manager import DuckDbClient
from pydantic import Field, PrivateAttr

from mixpanel_assets import private_files, settings
from mixpanel_assets.client.server_text import visible
from mixpanel_assets.errors import MixpanelAssetsError
from mixpanel_assets.properties.first_views import ensure_views
from mixpanel_assets.properties.handler import PropertiesHandler
from mixpanel_assets.properties.sources import SOURCES
from mixpanel_assets.resources import READ_COPY, StagingResource, warehouse_at
from mixpanel_assets.storage.warehouse import count
from mixpanel_assets.streams.days import ranges_of
from mixpanel_assets.streams.events import load as events_table
from mixpanel_assets.streams.events.load import StagedEvents
from mixpanel_assets.streams.events.stored import TABLE, StoredEvents, stored
from mixpanel_assets.streams.snapshot.load import StagedSnapshot, publish
from mixpanel_assets.streams.snapshot.stream import SnapshotStream

_PREVIEW_CHARACTERS = 40


class WarehouseIOManager(DuckDBIOManager):
    """Writes assets to DuckDB, each output in one transaction."""

    database: str = Field(default="", description="DuckDB file; default: MP_DUCKDB_PATH.")
    read_copy: str = Field(default="", description=READ_COPY)
    preview_rows: int = Field(
        default=5,
        ge=0,
        description="Rows of the table shown with each sync; 0 where the UI and its event log should hold no profile.",
    )

    @staticmethod
    def type_handlers() -> Sequence[DbTypeHandler[Any]]:
        return [SnapshotHandler(), EventsHandler(), PropertiesHandler()]

    def create_io_manager(self, context: dg.InitResourceContext) -> DbIOManager:
        if self.database:
            # Refused before the first request, not when its rows are to be stored.
            settings.database_file("database", self.database)
        return _AtomicIOManager(
            db_client=_TransactionalClient(self.database, self.read_copy),
            database=self.database,
            schema=self.schema_,
            type_handlers=[SnapshotHandler(self.preview_rows), EventsHandler(), PropertiesHandler()],
            io_manager_name=type(self).__name__,
        )


class _AtomicIOManager(DbIOManager):
    """DbIOManager that lets go of staged files once what they held is committed."""

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        try:
            super().handle_output(context, obj)
        except MixpanelAssetsError as error:
            # Dagster wraps it in its own words and a stack; here it is one line.
            context.log.error(str(error))
            raise
        if isinstance(obj, StagedSnapshot | StagedEvents):
            obj.drop()
            self._ensure_views(context, obj)

    def _ensure_views(self, context: dg.OutputContext, stored: StagedSnapshot | StagedEvents) -> None:
        """What was stored can be queried by typed columns at once."""
        table = "events" if isinstance(stored, StagedEvents) else stored.stream.name
        source = next((source for source in SOURCES if source.table == table), None)
        if source is not None:
            client = cast("_TransactionalClient", self._db_client)
            ensure_views(warehouse_at(self._database, context.log.info, client.read_copy), source)


class SnapshotHandler(DbTypeHandler[StagedSnapshot]):
    """Publishes staged profile pages."""

    def __init__(self, preview_rows: int = 0) -> None:
        self._preview_rows = preview_rows

    @property
    def supported_types(self) -> Sequence[type[object]]:
        return [StagedSnapshot]

    def handle_output(
        self,
        context: dg.OutputContext,
        table_slice: TableSlice,
        obj: StagedSnapshot,
        connection: "duckdb.DuckDBPyConnection",
    ) -> Mapping[str, Any]:
        rows, published = obj.stream.name, publish(connection, obj)
        context.log.info(
            f"mixpanel.{rows} holds {published.rows} {rows}: {published.added} new, {published.removed} removed"
        )
        if published.missing and not obj.failed:
            context.log.warning(
                f"{published.missing} of {obj.total or 'the'} {rows} did not come, so that none was removed"
            )
        if published.newer:
            context.log.warning(f"{published.newer} {rows} stay as a sync that began later has stored them")
        if published.absent:
            context.log.warning(
                f"none of the {rows} that came has {_quoted(published.absent)}: check output_properties, capitals and "
                "$ count"
            )
        seconds = (datetime.now(timezone.utc) - obj.snapshot.started_at).total_seconds()
        return {
            **_preview(connection, obj.stream, self._preview_rows),
            "dagster/row_count": published.rows,
            "rows_in_scope": published.rows_in_scope,
            f"new_{rows}": published.added,
            f"removed_{rows}": published.removed,
            f"duplicate_{rows}": published.duplicates,
            f"missing_{rows}": dg.MetadataValue.null() if published.missing is None else published.missing,
            "duration_seconds": round(seconds, 3),
        }

    def load_input(
        self, context: dg.InputContext, table_slice: TableSlice, connection: "duckdb.DuckDBPyConnection"
    ) -> StagedSnapshot:
        raise NotImplementedError("query the table through the `warehouse` resource instead of loading it")


def _preview(connection: "duckdb.DuckDBPyConnection", stream: SnapshotStream, rows: int) -> Mapping[str, Any]:
    """The latest rows, as a table: in Markdown, a property could make the UI load a picture from anywhere."""
    if not rows:
        return {}
    columns = [stream.key.name, *(column.name for column in stream.columns), stream.content.name]
    latest = stream.columns[0].name if stream.columns else stream.key.name
    found = connection.execute(
        f"select {', '.join(f'{name}::varchar' for name in columns[:-1])}, "
        f"left({stream.content.name}::varchar, {_PREVIEW_CHARACTERS}) "
        f"from {stream.name} order by {latest} desc nulls last limit {rows}"
    ).fetchall()
    records = [dg.TableRecord(dict(zip(columns, map(_shown, row), strict=True))) for row in found]
    schema = dg.TableSchema([dg.TableColumn(name) for name in columns])
    return {"preview": dg.MetadataValue.table(records, schema)}


def _shown(value: str | None) -> str | None:
    return None if value is None else visible(value)


def _quoted(names: Sequence[str]) -> str:
    """Names in a line, without what a terminal would act on."""
    return " or ".join(json.dumps(name) if not name.isprintable() else f'"{name}"' for name in names)


class EventsHandler(DbTypeHandler[StagedEvents]):
    """Publishes staged ranges of events; what it says of each day is read back as `StoredEvents`."""

    @property
    def supported_types(self) -> Sequence[type[object]]:
        return [StagedEvents, StoredEvents]

    def handle_output(
        self,
        context: dg.OutputContext,
        table_slice: TableSlice,
        obj: StagedEvents,
        connection: "duckdb.DuckDBPyConnection",
    ) -> Mapping[str, Any]:
        published = events_table.publish(connection, obj)
        for refused in published.refused:
            context.log.error(f"missing from this sync: {refused.reason}")
        if published.absent:
            context.log.warning(
                f"no event that came is named {_quoted(published.absent)}: check events, capitals and spaces count"
            )
        if published.left:
            days = ", ".join(f"{first} to {last}" for first, last in ranges_of(published.left))
            context.log.warning(f"{days}: left as stored by a sync that asked for these days later")
        return {"dagster/row_count": count(connection, f"select count(*) from {TABLE}")}

    def load_input(  # type: ignore[override]  # what is read back is not what was written
        self, context: dg.InputContext, table_slice: TableSlice, connection: "duckdb.DuckDBPyConnection"
    ) -> StoredEvents:
        return stored(connection)


class _TransactionalClient(DuckDbClient):
    """One transaction for whatever DbIOManager does to a table."""

    def __init__(self, database: str, read_copy: str) -> None:
        self._database = database
        self.read_copy = read_copy

    @contextmanager
    def connect(  # type: ignore[override]  # upstream's is static; the path is this manager's own
        self, context: dg.OutputContext, table_slice: TableSlice
    ) -> "Iterator[duckdb.DuckDBPyConnection]":
        with warehouse_at(self._database, context.log.warning, self.read_copy).transaction() as connection:
            yield connection

    @staticmethod
    def delete_table_slice(
        context: dg.OutputContext, table_slice: TableSlice, connection: "duckdb.DuckDBPyConnection"
    ) -> None:
        """Nothing: what goes is decided by the handler, which knows what came."""

    @staticmethod
    def ensure_schema_exists(
        context: dg.OutputContext, table_slice: TableSlice, connection: "duckdb.DuckDBPyConnection"
    ) -> None:
        """Nothing: the warehouse's transaction has seen to it."""

    @staticmethod
    def get_table_name(table_slice: TableSlice) -> str:
        """Without the file's path, which is nobody's business in the UI."""
        return f"{table_slice.schema}.{table_slice.table}"


class HandleIOManager(dg.ConfigurableIOManager):
    """Keeps what ops hand on (plans, page results) in memory, and as files for a re-execution in another process.

    Dagster's own keeps them for ever and logs each read and write, some 5 ms apiece; these lie in the staging folder,
    go when their run is over and another one begins, and say nothing.
    """

    staging: dg.ResourceDependency[StagingResource]
    _memory: dict[Path, Any] = PrivateAttr(default_factory=dict)

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        file = self._file(context)
        private_files.make_folder(file.parent)
        private_files.write(file, pickle.dumps(obj))
        self._memory[file] = obj

    def load_input(self, context: dg.InputContext) -> Any:
        if context.upstream_output is None:
            raise ValueError("a handle has no upstream output")
        file = self._file(context.upstream_output)
        if file not in self._memory:
            try:
                self._memory[file] = pickle.loads(file.read_bytes())
            except FileNotFoundError:
                raise MixpanelAssetsError(
                    "what the earlier run left was deleted when a later one began: materialize anew instead of from "
                    "the failure"
                ) from None
            except (ImportError, AttributeError, pickle.UnpicklingError, EOFError):
                raise MixpanelAssetsError(
                    "what the earlier run left is of another version of mixpanel_assets: materialize anew instead of "
                    "from the failure"
                ) from None
        return self._memory[file]

    def _file(self, context: dg.OutputContext) -> Path:
        return self.staging.root / "handles" / Path(*context.get_identifier())
