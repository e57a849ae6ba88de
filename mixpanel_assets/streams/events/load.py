"""`mixpanel.events`: its columns, and how staged events become its rows.

The days that came are replaced, in the caller's transaction; days that did not keep their rows, and so do days that a
load asked for later, of all that is asked here, has stored. What each load did to a day is kept in `event_days`: a day
with no events has a row there, a day never loaded has none. Opening and committing are storage/warehouse.py's; what a
staged file holds is columns.py's, which has proven it.
"""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

import math
from dataclasses import dataclass, replace

import duckdb
import msgspec

from mixpanel_assets.storage.columns import create_table, is_newer
from mixpanel_assets.storage.rejected_rows import REJECTED_TABLE, create_rejected_rows
from mixpanel_assets.storage.warehouse import bound_memory, count, has_column, table_exists
from mixpanel_assets.streams.events import missing, same_event
from mixpanel_assets.streams.events.missing import RefusedDay
from mixpanel_assets.streams.events.query import EventsQuery
from mixpanel_assets.streams.events.same_event import KEY_HASH
from mixpanel_assets.streams.events.staged import StagedEvents
from mixpanel_assets.streams.events.staged_rows import NO_PLACE, add_rejected_lines, files, note_ranges, staged_events
from mixpanel_assets.streams.events.stored import COLUMNS, DAY, DAYS_TABLE, TABLE

# With these a million events of 500 bytes load as fast as without; the rest DuckDB writes out while it loads.
_MEMORY_MB = 400
_STAGED_DAYS = "(select day from staged_days)"
_ROWS_BY_DAY = f"select day, count(*) as rows from {TABLE} group by all"

# A row set aside belongs to no day for sure: it counts for the first of the days it came with.
_REJECTED_BY_DAY = f"""
    select from_day as day, synced_at, count(*) as rows from {REJECTED_TABLE}
    where asset = 'events' and not stored group by all
    """


@dataclass(frozen=True)
class Published:
    """What a publish left as it was: days that what was asked for later has stored, and days whose answer lacks too
    many of their rows. `absent`: names of events that were asked for, and that no event has that came."""

    left: list[str]
    refused: tuple[RefusedDay, ...]
    absent: tuple[str, ...] = ()


def publish(connection: duckdb.DuckDBPyConnection, staged: StagedEvents) -> Published:
    """Bring staged ranges into the table, within the caller's transaction."""
    bound_memory(connection, _MEMORY_MB)
    _create_tables(connection)
    left: list[str] = []
    refused: list[RefusedDay] = []
    absent: list[str] = []
    for query in dict.fromkeys(part.query for part in staged.ranges):
        alike = tuple(part for part in staged.ranges if part.query == query)
        absent += _absent_names(connection, replace(staged, ranges=alike), query)
        newer, shrunken = _publish(connection, replace(staged, ranges=alike), query)
        left += newer
        refused += shrunken
    missing.note_days(connection, (*staged.ranges, *staged.unserved), staged.failed, refused)
    return Published(sorted(left), tuple(refused), tuple(dict.fromkeys(absent)))


def _publish(
    connection: duckdb.DuckDBPyConnection, staged: StagedEvents, query: EventsQuery
) -> tuple[list[str], list[RefusedDay]]:
    _note_staged(connection, staged)
    left = _leave_newer(connection, query)
    staged = _without_left(connection, staged) if left else staged
    _note_replaced(connection, query)
    refused = _refuse_shrunken(connection, staged, query)
    _delete_replaced(connection, query)
    unplaced = _insert(connection, staged)
    _replace_set_aside(connection, staged, unplaced)
    _drop_repeats(connection)
    _write_days(connection, query)
    return left, refused


def _absent_names(connection: duckdb.DuckDBPyConnection, staged: StagedEvents, query: EventsQuery) -> list[str]:
    """Names that were asked for and brought nothing."""
    if query.events is None:
        return []
    staged_files = files(staged)
    if not staged_files:
        return list(query.events)
    rows = connection.execute("select distinct event_name from read_parquet(?)", [staged_files]).fetchall()
    came = {name for (name,) in rows}
    return [name for name in query.events if name not in came]


def _create_tables(connection: duckdb.DuckDBPyConnection) -> None:
    lacks_days = table_exists(connection, TABLE) and not has_column(connection, TABLE, "day")
    create_table(connection, TABLE, COLUMNS, later=(DAY,))
    if lacks_days:
        connection.execute(f"update {TABLE} set day = event_time::date")
    connection.execute(
        f"create table if not exists {DAYS_TABLE} (day date, rows bigint, duplicates bigint, "
        "rejected bigint, new bigint, changed bigint, gone bigint, synced_at timestamptz, query varchar)"
    )
    # A table of an earlier version has none.
    connection.execute(f"alter table {DAYS_TABLE} add column if not exists query varchar")
    create_rejected_rows(connection)


def _note_staged(connection: duckdb.DuckDBPyConnection, staged: StagedEvents) -> None:
    """Tables `staged_ranges`, one row per file, and `staged_days`."""
    note_ranges(connection, staged)
    connection.execute(
        "create temp table staged_days as "
        "select unnest(generate_series(from_day, to_day, interval 1 day))::date as day, synced_at from staged_ranges"
    )


def _leave_newer(connection: duckdb.DuckDBPyConnection, query: EventsQuery) -> list[str]:
    """Take out of `staged_days` what was asked for later, and for as much. Returns those days; this load does nothing
    to them.

    A day that was asked for later with less is replaced, but for the rows that came then.
    """
    newer = connection.execute(
        f"select day::varchar, query from {DAYS_TABLE} as loaded join staged_days using (day) "
        f"where query is not null and {is_newer('loaded.synced_at', 'staged_days.synced_at')} order by day"
    ).fetchall()
    left = [day for day, asked in newer if msgspec.json.decode(asked, type=EventsQuery).covers(query)]
    if left:
        connection.execute("delete from staged_days where list_contains(?, day::varchar)", [left])
        connection.execute(
            f"update {DAYS_TABLE} set new = 0, changed = 0, gone = 0 where list_contains(?, day::varchar)", [left]
        )
    return left


def _without_left(connection: duckdb.DuckDBPyConnection, staged: StagedEvents) -> StagedEvents:
    """Without ranges of which no day is to be loaded, so that nothing they set aside is noted."""
    rows = connection.execute(
        "select from_day::varchar from staged_ranges semi join staged_days on day between from_day and to_day"
    ).fetchall()
    firsts = {first for (first,) in rows}
    return replace(staged, ranges=tuple(part for part in staged.ranges if part.from_date in firsts))


def _note_replaced(connection: duckdb.DuckDBPyConnection, query: EventsQuery) -> None:
    """Table `replaced`: key and content of the rows that the staged days hold now."""
    scope, names = _scope(query)
    connection.execute(
        f"create temp table replaced as select day, {KEY_HASH} as key, "
        f"hash(properties::varchar) as content from {TABLE} where day in {_STAGED_DAYS} and {scope}",
        names,
    )


def _refuse_shrunken(
    connection: duckdb.DuckDBPyConnection, staged: StagedEvents, query: EventsQuery
) -> list[RefusedDay]:
    """Take out of `staged_days` those that are over and whose answer lacks too many of the rows that are stored.

    One answer may be a fault, and what it lacks would be gone for good. With a filter expression nothing is removed.
    """
    stored = dict(
        connection.execute(
            "select day::varchar, count(distinct key) from replaced where day::varchar < ? group by day", [staged.today]
        ).fetchall()
    )
    if not stored or query.where is not None:
        return []
    came = _keys_that_came(connection, staged)
    refused = [
        RefusedDay(day, query, _too_few(day, rows, came.get(day, 0)))
        for day, rows in sorted(stored.items())
        if rows - came.get(day, 0) > staged.max_removed_fraction * rows
    ]
    days = [each.day for each in refused]
    for table in ("staged_days", "replaced"):
        connection.execute(f"delete from {table} where list_contains(?, day::varchar)", [days])
    return refused


def _keys_that_came(connection: duckdb.DuckDBPyConnection, staged: StagedEvents) -> dict[str, int]:
    """Different keys of each staged day."""
    if not files(staged):
        return {}
    return dict(
        connection.execute(
            f"select day::varchar, count(distinct {KEY_HASH}) from {staged_events(staged)} "
            f"where ({NO_PLACE}) is null group by day",
            [files(staged)],
        ).fetchall()
    )


def _too_few(day: str, stored: int, came: int) -> str:
    needed = math.ceil((stored - came) / stored * 100) / 100
    return (
        f"events of {day}: {came} came where {stored} are stored, which stay; if the others are really gone, sync the "
        f"day again with max_removed_fraction={needed:.2f}"
    )


def _delete_replaced(connection: duckdb.DuckDBPyConnection, query: EventsQuery) -> None:
    """With a filter expression nobody can tell which rows it would have served: then rows only replace their like."""
    if query.where is None:
        scope, names = _scope(query)
        newer = is_newer(f"{TABLE}.synced_at", "staged_days.synced_at")
        connection.execute(
            f"delete from {TABLE} using staged_days where {TABLE}.day = staged_days.day and {scope} "
            f"and {newer} is not true",
            names,
        )


def _scope(query: EventsQuery) -> tuple[str, list[list[str]]]:
    """The condition for rows that the query could have served, apart from its filter expression."""
    return ("true", []) if query.events is None else ("list_contains(?, event_name)", [list(query.events)])


def _insert(connection: duckdb.DuckDBPyConnection, staged: StagedEvents) -> int:
    """Insert the staged rows that have a place. Returns how many have none, or belong to a day that is left."""
    placed = -_rows_of_staged_days(connection)
    if staged_files := files(staged):
        connection.execute(
            f"insert into {TABLE} by name select {', '.join(column.name for column in COLUMNS)} "
            f"from {staged_events(staged)} where ({NO_PLACE}) is null and day in {_STAGED_DAYS}",
            [staged_files],
        )
    placed += _rows_of_staged_days(connection)
    return sum(part.lines for part in staged.ranges) - placed


def _rows_of_staged_days(connection: duckdb.DuckDBPyConnection) -> int:
    return count(connection, f"select count(*) from {TABLE} where day in {_STAGED_DAYS}")


def _replace_set_aside(connection: duckdb.DuckDBPyConnection, staged: StagedEvents, unplaced: int) -> None:
    """Replace the rows that earlier loads of these days set aside."""
    newer = is_newer("aside.synced_at", "staged_ranges.synced_at")
    connection.execute(
        f"delete from {REJECTED_TABLE} as aside where asset = 'events' and exists (from staged_ranges "
        "where aside.from_day >= staged_ranges.from_day and aside.to_day <= staged_ranges.to_day "
        f"and {newer} is not true)"
    )
    add_rejected_lines(connection, staged, TABLE, unplaced)


def _drop_repeats(connection: duckdb.DuckDBPyConnection) -> None:
    """Leave one row of each event. Table `dropped`: how many rows of this load do not stay, by day."""
    same_event.delete_repeats(connection, TABLE, f"day in {_STAGED_DAYS}")
    connection.execute(
        "create temp table dropped as select day, count(*) as rows from surplus "
        "join staged_days using (day, synced_at) group by day"
    )


def _write_days(connection: duckdb.DuckDBPyConnection, query: EventsQuery) -> None:
    """Say in `event_days` what this load did to each day."""
    _note_differences(connection, query)
    connection.execute(f"delete from {DAYS_TABLE} where day in {_STAGED_DAYS}")
    connection.execute(
        f"""
        insert into {DAYS_TABLE} (day, rows, duplicates, rejected, new, changed, gone, synced_at, query)
        select day, coalesce(stored.rows, 0), coalesce(dropped.rows, 0), coalesce(aside.rows, 0),
               coalesce(new, 0), coalesce(changed, 0), coalesce(gone, 0), staged_days.synced_at,
               $query
        from staged_days
        left join ({_ROWS_BY_DAY}) as stored using (day)
        left join dropped using (day)
        left join ({_REJECTED_BY_DAY}) as aside using (day, synced_at)
        left join differences using (day)
        """,
        {"query": msgspec.json.encode(query).decode()},
    )
    for table in ("staged_ranges", "staged_days", "replaced", "surplus", "dropped", "differences"):
        connection.execute(f"drop table {table}")


def _note_differences(connection: duckdb.DuckDBPyConnection, query: EventsQuery) -> None:
    """Table `differences`: the rows of each staged day against those they replaced."""
    scope, names = _scope(query)
    if not count(connection, "select count(*) from replaced"):
        # The usual case by far; comparing a million rows with none takes a second.
        connection.execute(
            "create temp table differences as select day, count(*) as new, 0 as changed, 0 as gone "
            f"from {TABLE} where day in {_STAGED_DAYS} and {scope} group by day",
            names,
        )
        return
    connection.execute(
        f"create temp table differences as "
        f"with loaded as (select day, {KEY_HASH} as key, "
        f"hash(properties::varchar) as content from {TABLE} where day in {_STAGED_DAYS} and {scope}) "
        "select day, count(*) filter (replaced.key is null) as new, count(*) filter (loaded.key is null) as gone, "
        "count(*) filter (loaded.content <> replaced.content) as changed "
        "from loaded full join replaced using (day, key) group by day",
        names,
    )
