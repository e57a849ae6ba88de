"""`mixpanel.events` and `mixpanel.event_days`, as they are read: the columns, and whether the rows are as loaded."""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

import duckdb

from mixpanel_assets.storage.columns import SYNCED_AT, Column
from mixpanel_assets.storage.warehouse import count, has_column, table_exists
from mixpanel_assets.streams.events import missing, same_event
from mixpanel_assets.streams.events.missing import RefusedDay

TABLE = "events"
DAYS_TABLE = "event_days"
DAY = Column("day", "DATE", "The project's day, by which Mixpanel serves it.", nullable=False)
COLUMNS = (
    Column("event_name", "VARCHAR", "The event's name."),
    Column("event_time", "TIMESTAMP", "When it happened, UTC.", nullable=False),
    Column("distinct_id", "VARCHAR", "Whose event it is."),
    Column("insert_id", "VARCHAR", "Mixpanel's id for telling copies apart; NULL where the sender gave none."),
    Column("properties", "JSON", "All properties of the event, exactly as Mixpanel serves them."),
    SYNCED_AT,
    DAY,
)


@dataclass(frozen=True)
class StoredDay:
    """What the last load of a day did: rows now stored, served twice, set aside; and against the rows it replaced."""

    rows: int
    duplicates: int
    rejected: int
    new: int
    changed: int
    gone: int


@dataclass(frozen=True)
class StoredEvents:
    """All days that were ever loaded, by ISO date, those whose last answer was refused, and where that was read."""

    days: dict[str, StoredDay]
    refused: tuple[RefusedDay, ...] = ()
    database: str = ""
    warehouse_id: str = ""


def stored(connection: duckdb.DuckDBPyConnection) -> StoredEvents:
    """What `event_days` says."""
    rows = connection.execute(
        f"select day::varchar, rows, duplicates, rejected, new, changed, gone from {DAYS_TABLE}"
    ).fetchall()
    return StoredEvents({day: StoredDay(*numbers) for day, *numbers in rows}, missing.refused_days(connection))


def loaded_at(connection: duckdb.DuckDBPyConnection) -> Mapping[str, datetime]:
    """When what each day holds was asked for, by ISO date; nothing before the first load."""
    if not table_exists(connection, DAYS_TABLE):
        return {}
    return dict(connection.execute(f"select day::varchar, synced_at from {DAYS_TABLE}").fetchall())


def repeated_keys(connection: duckdb.DuckDBPyConnection, first: str | None, last: str | None) -> int:
    """Rows that repeat another's key, from the first to the last day (ISO dates, inclusive; None: no bound)."""
    days = f"{_day(connection)} between coalesce(?::date, '-infinity') and coalesce(?::date, 'infinity')"
    return count(
        connection, f"select count(*) from {same_event.repeated(TABLE, days, _day(connection))}", [first, last]
    )


def rows_outside_their_days(connection: duckdb.DuckDBPyConnection) -> int:
    """Rows that lie in no day that was loaded."""
    rows = f"select {_day(connection)} as day from {TABLE}"
    return count(connection, f"select count(*) from ({rows}) anti join {DAYS_TABLE} using (day)")


def differing_days(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Loaded days of which the table does not hold as many rows as their load stored."""
    rows = connection.execute(
        f"select day::varchar from {DAYS_TABLE} as loaded "
        f"left join (select {_day(connection)} as day, count(*) as rows from {TABLE} group by 1) as found using (day) "
        "where loaded.rows <> coalesce(found.rows, 0) order by day"
    ).fetchall()
    return [day for (day,) in rows]


def _day(connection: duckdb.DuckDBPyConnection) -> str:
    """The day of a stored row, also in a table of an earlier version, which only a load takes over."""
    return "day" if has_column(connection, TABLE, "day") else "event_time::date"
