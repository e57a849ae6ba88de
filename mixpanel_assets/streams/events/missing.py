"""`mixpanel.missing_days`: what syncs asked for and did not get, until it comes.

They are written in the transaction that stores the rest, so whoever reads the tables sees what they lack, and what
failed in a sync that left no history in Dagster can be fetched again. A sync that stored nothing leaves no row.
"""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

from collections.abc import Iterable
from dataclasses import dataclass

import duckdb
import msgspec

from mixpanel_assets.storage.warehouse import table_exists
from mixpanel_assets.streams.events.query import EventsQuery
from mixpanel_assets.streams.events.staged import RangeResult

DAYS_TABLE = "missing_days"


@dataclass(frozen=True)
class RefusedDay:
    """A day whose answer was refused, because it held too few of the rows that are stored; they stay."""

    day: str
    query: EventsQuery
    reason: str


def note_days(
    connection: duckdb.DuckDBPyConnection,
    settled: Iterable[RangeResult],
    failed: Iterable[RangeResult],
    refused: Iterable[RefusedDay],
) -> None:
    """Take out the days that came, as far as what was asked of them covers what was missing, and those that the server
    does not serve; add those that failed, and of those that came the ones that were refused."""
    connection.execute(
        f"create table if not exists {DAYS_TABLE} "
        "(day date, reason varchar, query varchar, noted_at timestamptz, refused boolean)"
    )
    for part in settled:
        _settle(connection, part)
    for part in failed:
        days = [part.from_date, part.to_date, _text(part.query)]
        connection.execute(f"delete from {DAYS_TABLE} where day between ?::date and ?::date and query = ?", days)
        connection.execute(
            f"insert into {DAYS_TABLE} "
            "select unnest(generate_series(?::date, ?::date, interval 1 day))::date, ?, ?, now(), false",
            [part.from_date, part.to_date, part.error, _text(part.query)],
        )
    for each in refused:
        connection.execute(
            f"insert into {DAYS_TABLE} values (?, ?, ?, now(), true)", [each.day, each.reason, _text(each.query)]
        )


def missing_days(connection: duckdb.DuckDBPyConnection) -> dict[str, EventsQuery] | None:
    """Days of events that failed and have not come since, as ISO dates in order, each as it was asked for last; None
    where no sync has said it here."""
    if not table_exists(connection, DAYS_TABLE):
        return None
    rows = connection.execute(f"select day::varchar, query from {DAYS_TABLE} order by day, noted_at").fetchall()
    return {day: msgspec.json.decode(query, type=EventsQuery) for day, query in rows}


def refused_days(connection: duckdb.DuckDBPyConnection) -> tuple[RefusedDay, ...]:
    """The days whose last answer was refused."""
    if not table_exists(connection, DAYS_TABLE):
        return ()
    rows = connection.execute(f"select day::varchar, query, reason from {DAYS_TABLE} where refused").fetchall()
    return tuple(RefusedDay(day, msgspec.json.decode(query, type=EventsQuery), reason) for day, query, reason in rows)


def _settle(connection: duckdb.DuckDBPyConnection, part: RangeResult) -> None:
    days = f"from {DAYS_TABLE} where day between ?::date and ?::date"
    missing = connection.execute(f"select distinct query {days}", [part.from_date, part.to_date]).fetchall()
    settled = [text for (text,) in missing if _settles(part, msgspec.json.decode(text, type=EventsQuery))]
    if settled:
        connection.execute(f"delete {days} and list_contains(?, query)", [part.from_date, part.to_date, settled])


def _settles(part: RangeResult, missing: EventsQuery) -> bool:
    """Whether what was missing has come, or no query can bring it."""
    if part.unserved:
        return missing.source in (None, part.query.source)
    return part.query.covers(missing)


def _text(query: EventsQuery) -> str:
    """A query as it is told from others; no sample is missing, and versions before knew of none."""
    said = {name: value for name, value in msgspec.to_builtins(query).items() if name != "limit"}
    return msgspec.json.encode(said).decode()
