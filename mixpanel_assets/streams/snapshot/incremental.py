"""`mixpanel.profile_syncs` and its like: when syncs began that lacked no page; another may ask for what was seen since.

One row for each thing that was asked for. A sync that lacks a page leaves it as it is, so that the next one asks from
where the one before did.
"""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

import datetime
import hashlib
from dataclasses import dataclass, replace

import duckdb
import msgspec

from mixpanel_assets.storage.warehouse import table_exists
from mixpanel_assets.streams.snapshot.staged import StagedSnapshot
from mixpanel_assets.streams.snapshot.stream import SnapshotQuery, SnapshotStream

# Filters that name a day are asked for once.
_KEPT_DAYS = 30


@dataclass(frozen=True)
class Since:
    """From when on rows are asked for, and when the last complete sync began."""

    moment: datetime.datetime
    complete: datetime.datetime


def note(connection: duckdb.DuckDBPyConnection, staged: StagedSnapshot) -> None:
    """Note a sync, in the transaction that stores it."""
    table, query, began = staged.stream.syncs_table, staged.snapshot.query, staged.snapshot.started_at
    if table is None or staged.failed:
        return
    connection.execute(
        f"create table if not exists {table} (asked varchar, last_began timestamptz, complete_began timestamptz)"
    )
    known = _known(connection, staged.stream, query)
    last = began if known is None else max(began, known.moment)
    complete = None if known is None else known.complete
    if not query.is_incremental:
        complete = began if complete is None else max(began, complete)
    if complete is None:
        return
    connection.execute(
        f"delete from {table} where asked = ? or complete_began < now() - interval {_KEPT_DAYS} day", [_asked(query)]
    )
    connection.execute(f"insert into {table} values (?, ?, ?)", [_asked(query), last, complete])


def since(
    connection: duckdb.DuckDBPyConnection | None,
    stream: SnapshotStream,
    query: SnapshotQuery,
    overlap: datetime.timedelta,
    longest: datetime.timedelta,
) -> Since | None:
    """From when on to ask; None where a complete sync is due: there was none, or it began `longest` ago."""
    known = None if connection is None else _known(connection, stream, query)
    age = None if known is None else datetime.datetime.now(datetime.timezone.utc) - known.complete
    # A moment in the future was written by a wrong clock.
    if known is None or age is None or not datetime.timedelta() <= age < longest or known.moment < known.complete:
        return None
    return Since(known.moment - overlap, known.complete)


def _known(connection: duckdb.DuckDBPyConnection, stream: SnapshotStream, query: SnapshotQuery) -> Since | None:
    if stream.syncs_table is None or not table_exists(connection, stream.syncs_table):
        return None
    rows = connection.execute(
        f"select epoch_us(last_began), epoch_us(complete_began) from {stream.syncs_table} where asked = ?",
        [_asked(query)],
    ).fetchall()
    return Since(*map(_moment, rows[0])) if rows else None


def _moment(microseconds: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(0, datetime.timezone.utc) + datetime.timedelta(microseconds=microseconds)


def _asked(query: SnapshotQuery) -> str:
    """What was asked for, whenever that was, as a hash: it may name thousands of ids. Other properties, or another
    project's, are another thing."""
    same: SnapshotQuery = replace(query, seen_since=None) if query.is_incremental else query  # type: ignore[type-var]
    return hashlib.sha256(msgspec.json.encode(same)).hexdigest()
