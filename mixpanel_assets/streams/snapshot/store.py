"""What the IO manager does with the staged pages of a sync, and what the UI shows of it."""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

import dagster as dg
import duckdb

from mixpanel_assets.client.server_text import quoted, visible
from mixpanel_assets.streams.snapshot.history import Noted
from mixpanel_assets.streams.snapshot.load import publish
from mixpanel_assets.streams.snapshot.staged import StagedSnapshot
from mixpanel_assets.streams.snapshot.stream import SnapshotStream

_PREVIEW_CHARACTERS = 40


def store(
    connection: duckdb.DuckDBPyConnection, staged: StagedSnapshot, log: dg.DagsterLogManager, preview_rows: int = 0
) -> Mapping[str, Any]:
    """Publish them, within the caller's transaction. Returns the metadata that only the table knows.

    Raises:
        WarehouseError: they must not be stored.
    """
    rows, published = staged.stream.name, publish(connection, staged)
    log.info(
        f"{staged.schema}.{rows} holds {published.rows} {rows}: {published.added} new, {published.removed} removed"
    )
    if published.missing and not staged.failed:
        log.warning(f"{published.missing} of {staged.total or 'the'} {rows} did not come, so that none was removed")
    if published.newer:
        log.warning(f"{published.newer} {rows} stay as a sync that began later has stored them")
    if published.absent:
        log.warning(
            f"none of the {rows} that came has {quoted(published.absent)}: check output_properties, capitals and "
            "$ count"
        )
    if empty := staged.empty_parts:
        log.warning(f"there are no {rows} of {quoted(empty)}: if there should be, check the number and the filter")
    seconds = (datetime.now(timezone.utc) - staged.snapshot.started_at).total_seconds()
    return {
        **_history(published.history),
        **_preview(connection, staged.stream, preview_rows),
        "dagster/row_count": published.rows,
        f"new_{rows}": published.added,
        f"removed_{rows}": published.removed,
        f"duplicate_{rows}": published.duplicates,
        f"missing_{rows}": dg.MetadataValue.null() if published.missing is None else published.missing,
        "duration_seconds": round(seconds, 3),
    }


def _history(noted: Noted | None) -> Mapping[str, Any]:
    if noted is None:
        return {}
    return {"history_rows": noted.rows, "history_periods_begun": noted.began, "history_removed": noted.removed}


def _preview(connection: duckdb.DuckDBPyConnection, stream: SnapshotStream, rows: int) -> Mapping[str, Any]:
    """The latest rows, as a table: in Markdown, a property could make the UI load a picture from anywhere."""
    if not rows:
        return {}
    columns = [*stream.row_key, *(column.name for column in stream.columns)]
    shown = [f"{name}::varchar" for name in columns]
    if stream.content is not None:
        columns.append(stream.content.name)
        shown.append(f"left({stream.content.name}::varchar, {_PREVIEW_CHARACTERS})")
    latest = stream.columns[0].name if stream.columns else stream.key.name
    found = connection.execute(
        f"select {', '.join(shown)} from {stream.name} order by {latest} desc nulls last limit {rows}"
    ).fetchall()
    records = [dg.TableRecord(dict(zip(columns, map(_shown, row), strict=True))) for row in found]
    schema = dg.TableSchema([dg.TableColumn(name) for name in columns])
    return {"preview": dg.MetadataValue.table(records, schema)}


def _shown(value: str | None) -> str | None:
    return None if value is None else visible(value)
