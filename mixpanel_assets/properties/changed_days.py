"""What is made out of the events of each day, made anew only for days whose rows are not those that it was made of."""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

import datetime
from collections.abc import Callable, Iterator

import duckdb

from mixpanel_assets.properties.sources import EVENTS
from mixpanel_assets.storage.warehouse import has_column

# Bounds what one query has to keep: the groups of a batch, not of all days.
_BATCH_ROWS = 500_000


def update(
    connection: duckdb.DuckDBPyConnection,
    results: str,
    seen: str,
    made_by: str,
    query: Callable[[str, str], str],
    *,
    in_utc: bool = False,
) -> None:
    """Bring a table of results up to date with `events`, within the caller's transaction.

    Args:
        connection: Its current schema has the tables.
        results: A table that is there, with a column `day`; with `in_utc` one `event_time` in its place.
        seen: Where it is noted which rows of each day the results are of.
        made_by: What made them: those of another maker are made anew.
        query: Makes the results of some days: its arguments are the expression that is an event's day, and the clause
            `where ...` that chooses these days, which has parameters of its own.
        in_utc: Days are those of `event_time`, not the project's.
    """
    connection.execute(
        f"create table if not exists {seen} (day date, rows bigint, synced_at timestamptz, counted_by varchar)"
    )
    # A table of an earlier version has no days until a sync takes it over.
    by_time = in_utc or not has_column(connection, EVENTS.table, "day")
    day = "event_time::date" if by_time else "day"
    day_of_result = "event_time::date" if in_utc else "day"
    connection.execute(
        f"create temp table present as select {day} as day, count(*) as rows, "
        f"max(synced_at) as synced_at from {EVENTS.table} group by all"
    )
    same = f"select day from {seen} semi join present using (day, rows, synced_at) where counted_by = ?"
    connection.execute(f"delete from {seen} where day not in ({same})", [made_by])
    connection.execute(f"delete from {results} where {day_of_result} not in (select day from {seen})")
    # The range, of a column and of no expression, lets DuckDB skip what it need not read: without it one day of a
    # typed view parsed the JSON of all. The list leaves out days between that are there.
    first_to_last = "event_time >= ?::date and event_time < ?::date + 1" if by_time else "day between ? and ?"
    chosen = f"where {first_to_last} and list_contains(?::date[], {day})"
    for days in _batches(connection, seen):
        connection.execute(f"insert into {results} {query(day, chosen)}", [days[0], days[-1], days])
    connection.execute(f"insert into {seen} select *, ? from present anti join {seen} using (day)", [made_by])
    connection.execute("drop table present")


def _batches(connection: duckdb.DuckDBPyConnection, seen: str) -> Iterator[list[datetime.date]]:
    """The days to be made anew, in order, some `_BATCH_ROWS` at a time."""
    batch: list[datetime.date] = []
    size = 0
    query = f"select day, rows from present anti join {seen} using (day) order by day"
    for day, rows in connection.execute(query).fetchall():
        batch.append(day)
        size += rows
        if size >= _BATCH_ROWS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch
