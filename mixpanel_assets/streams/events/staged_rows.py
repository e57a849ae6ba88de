"""Staged events as rows that SQL can read, and those of them that have no place in a table of events.

A file's `event_time` is what was served, in UTC or not; here it becomes an instant, and tells the day.
"""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

from zoneinfo import ZoneInfo

import duckdb

from mixpanel_assets.storage.rejected_rows import REJECTED_TABLE, add_rejected_rows
from mixpanel_assets.streams.events.columns import MAX_LINE_BYTES
from mixpanel_assets.streams.events.staged import EventsFolder, RangeResult, StagedEvents
from mixpanel_assets.streams.events.wall_clock import instant

# Why a row has none; NULL of those that have one.
NO_PLACE = """
    case when event_time is null then 'no readable time'
         when day not between from_day and to_day then 'outside the days asked for' end
    """


def note_ranges(connection: duckdb.DuckDBPyConnection, staged: StagedEvents) -> None:
    """Table `staged_ranges`, one row per file: `staged_events` reads it."""
    connection.execute(
        "create temp table staged_ranges (filename varchar, from_day date, to_day date, synced_at timestamptz)"
    )
    connection.executemany(
        "insert into staged_ranges values (?, ?, ?, ?)",
        [[_events_file(staged, part), part.from_date, part.to_date, part.asked_at] for part in staged.ranges],
    )


def staged_events(staged: StagedEvents) -> str:
    """A query for the staged events and their ranges; its one parameter are the `files`."""
    first = min(part.from_date for part in staged.ranges)
    last = max(part.to_date for part in staged.ranges)
    utc = "event_time" if staged.zone is None else instant("event_time", ZoneInfo(staged.zone), first, last)
    rows = f"select * replace ({utc} as event_time), event_time::date as day from read_parquet(?, filename = true)"
    return f"({rows}) join staged_ranges using (filename)"


def files(staged: StagedEvents) -> list[str]:
    """The files that hold events."""
    return [_events_file(staged, part) for part in staged.ranges if part.lines]


def add_rejected_lines(connection: duckdb.DuckDBPyConnection, staged: StagedEvents, asset: str, unplaced: int) -> None:
    """Add to `rejected_rows` the lines that were rejected when they came and, if there are any, the staged rows that
    have no place."""
    for part in staged.ranges:
        if part.rejected or part.repaired:
            add_rejected_rows(
                connection,
                [EventsFolder(staged.staging, part.folder).rejected_file(part)],
                2 * MAX_LINE_BYTES,
                asset=asset,
                source=f"{part.from_date} to {part.to_date}",
                synced_at=part.asked_at,
                from_day=part.from_date,
                to_day=part.to_date,
            )
    if unplaced:
        line = """'{"event":' || name || ',"properties":' || properties || '}'"""
        connection.execute(
            f"insert into {REJECTED_TABLE} select '{asset}', from_day || ' to ' || to_day, null, {NO_PLACE}, {line}, "
            f"synced_at, false, from_day, to_day, null from {staged_events(staged)} where ({NO_PLACE}) is not null",
            [files(staged)],
        )


def _events_file(staged: StagedEvents, part: RangeResult) -> str:
    return str(EventsFolder(staged.staging, part.folder).events_file(part))
