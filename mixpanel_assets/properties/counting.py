"""Counts of properties per kind of value, for all rows of a source: all profiles anew, of events the days that changed.

Both leave a temporary table `counted`. The counting itself is statistics.py's; what the counts mean is catalogue.py's.
"""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

import duckdb

from mixpanel_assets.properties import changed_days, statistics
from mixpanel_assets.properties.sources import EVENTS, Source

DAYS = "event_property_days"
_COUNTED_DAYS = "event_property_counted_days"


def count_rows(connection: duckdb.DuckDBPyConnection, source: Source) -> None:
    """Table `counted`, from all rows: a profile that was synced is a profile that may have changed."""
    rows = (
        "select null::date as day, null::varchar as event_name, make_timestamp(epoch_us(synced_at)) as seen, "
        f"properties from {source.rows}"
    )
    connection.execute(f"create temp table counted as {statistics.counted(rows)}")


def count_days(connection: duckdb.DuckDBPyConnection) -> None:
    """Table `counted`, after counting the days of events whose rows are not those that were counted before."""
    connection.execute(f"create table if not exists {DAYS} (day date, {statistics.COLUMNS})")
    # A sketch stands on DuckDB's hash, which another version may change.
    counter = f"{duckdb.__version__}/{statistics.REVISION}"
    changed_days.update(connection, DAYS, _COUNTED_DAYS, counter, _counts)
    connection.execute(f"create temp table counted as select * replace (sketch::bit as sketch) from {DAYS}")


def _counts(day: str, chosen: str) -> str:
    return statistics.counted(
        f"select {day} as day, event_name, event_time as seen, properties from {EVENTS.table} {chosen}"
    )
