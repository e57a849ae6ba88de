"""Rows for the tests of properties, and what their tables say then."""

import json
from datetime import datetime, timezone
from typing import Any

import duckdb

from mixpanel_assets.properties.sources import GROUPS, Source

NOON = datetime.fromisoformat("2026-01-31T12:00:00")
Connection = duckdb.DuckDBPyConnection


def create(connection: Connection, source: Source) -> None:
    own = "event_name varchar, event_time timestamp, distinct_id varchar, insert_id varchar"
    if not source.by_event:
        own = (
            "group_key varchar, data_group_id varchar, group_id varchar" if source == GROUPS else "distinct_id varchar"
        )
        own += ", last_seen timestamp"
    connection.execute(f"create or replace table {source.table} ({own}, properties json, synced_at timestamptz)")


def profile(connection: Connection, number: int, properties: str, at: datetime = NOON) -> None:
    connection.execute(
        "insert into profiles (distinct_id, properties, synced_at) values (?, ?::json, ?)",
        [str(number), properties, utc(at)],
    )


def group_profile(connection: Connection, data_group_id: str, group_id: str, properties: str, key: str = "") -> None:
    connection.execute(
        "insert into groups (data_group_id, group_id, properties, synced_at, group_key) values (?, ?, ?::json, ?, ?)",
        [data_group_id, group_id, properties, utc(NOON), key or data_group_id],
    )


def event(connection: Connection, name: str, properties: str, at: datetime = NOON) -> None:
    connection.execute("insert into events values (?, ?, 'u', 'i', ?::json, ?)", [name, at, properties, utc(at)])


def utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=timezone.utc)


def text_of(members: dict[str, str]) -> str:
    return "{" + ", ".join(f"{json.dumps(name)}: {value}" for name, value in members.items()) + "}"


def columns_of(connection: Connection, source: Source) -> dict[str, tuple[str, str]]:
    """Property -> its column and type, over all rows."""
    rows = connection.execute(
        f"select name, column_name, column_type from {source.catalogue} where event_name is null"
    ).fetchall()
    return {name: (column, type_) for name, column, type_ in rows}


def rows_of(connection: Connection, query: str) -> list[dict[str, Any]]:
    result = connection.execute(query)
    names = [column[0] for column in result.description or ()]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]
