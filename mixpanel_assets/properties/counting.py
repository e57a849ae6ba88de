"""Counts of properties per kind of value, for all rows of a source: all profiles anew, of events the days that changed.

Both leave a temporary table `counted`. The counting itself is statistics.py's; what the counts mean is catalogue.py's.
"""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

import datetime
from collections.abc import Iterator

import duckdb

from mixpanel_assets.properties import statistics
from mixpanel_assets.properties.sources import Source
from mixpanel_assets.storage.warehouse import has_column

DAYS = "event_property_days"
_COUNTED_DAYS = "event_property_counted_days"
# Bounds what one query has to keep: the groups of a batch, not of all days.
_BATCH_ROWS = 500_000


def count_rows(connection: duckdb.DuckDBPyConnection, source: Source) -> None:
    """Table `counted`, from all rows: a profile that was synced is a profile that may have changed."""
    rows = (
        "select null::date as day, null::varchar as event_name, make_timestamp(epoch_us(synced_at)) as seen, "
        f"properties from {source.rows}"
    )
    connection.execute(f"create temp table counted as {statistics.counted(rows)}")


def count_days(connection: duckdb.DuckDBPyConnection, source: Source) -> None:
    """Table `counted`, after counting the days whose rows are not those that were counted before."""
    connection.execute(f"create table if not exists {DAYS} (day date, {statistics.COLUMNS})")
    connection.execute(
        f"create table if not exists {_COUNTED_DAYS} (day date, rows bigint, synced_at timestamptz, counted_by varchar)"
    )
    # A sketch stands on DuckDB's hash, which another version may change.
    counter = f"{duckdb.__version__}/{statistics.REVISION}"
    # A table of an earlier version has no days until a sync takes it over.
    day = "day" if has_column(connection, source.table, "day") else "event_time::date"
    connection.execute(
        f"create temp table present as select {day} as day, count(*) as rows, "
        f"max(synced_at) as synced_at from {source.table} group by all"
    )
    same = f"select day from {_COUNTED_DAYS} semi join present using (day, rows, synced_at) where counted_by = ?"
    connection.execute(f"delete from {_COUNTED_DAYS} where day not in ({same})", [counter])
    connection.execute(f"delete from {DAYS} where day not in (select day from {_COUNTED_DAYS})")
    for days in _batches(connection):
        rows = _events_of_days(source, day)
        connection.execute(f"insert into {DAYS} " + statistics.counted(rows), [days[0], days[-1], days])
    connection.execute(
        f"insert into {_COUNTED_DAYS} select *, ? from present anti join {_COUNTED_DAYS} using (day)", [counter]
    )
    connection.execute("drop table present")
    connection.execute(f"create temp table counted as select * replace (sketch::bit as sketch) from {DAYS}")


def _batches(connection: duckdb.DuckDBPyConnection) -> Iterator[list[datetime.date]]:
    """The days to count, in order, some `_BATCH_ROWS` at a time."""
    batch: list[datetime.date] = []
    size = 0
    query = f"select day, rows from present anti join {_COUNTED_DAYS} using (day) order by day"
    for day, rows in connection.execute(query).fetchall():
        batch.append(day)
        size += rows
        if size >= _BATCH_ROWS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _events_of_days(source: Source, day: str) -> str:
    return (
        f"select {day} as day, event_name, event_time as seen, properties "
        # The range lets DuckDB skip what it need not read; the list leaves out days between that are counted.
        f"from {source.table} where {day} between ?::date and ?::date "
        f"and list_contains(?::date[], {day})"
    )
