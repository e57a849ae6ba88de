"""`mixpanel.missing_pages` and its like: what the last sync of a stream in pages asked for and did not get.

It is written in the transaction that stores the rest, so whoever reads the tables sees what they lack, and what failed
in a sync that left no history in Dagster can be fetched again. A sync that stored nothing leaves it as it is.
"""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import msgspec

from mixpanel_assets.storage.warehouse import table_exists
from mixpanel_assets.streams.snapshot.staged import PageResult, Snapshot
from mixpanel_assets.streams.snapshot.stream import SnapshotQuery, SnapshotStream


@dataclass(frozen=True)
class MissingPages:
    """Pages that the last sync lacks: of which snapshot, and what it asked for."""

    query: SnapshotQuery
    snapshot_id: str
    pages: list[int]


def note_pages(
    connection: duckdb.DuckDBPyConnection, stream: SnapshotStream, snapshot: Snapshot, failed: Sequence[PageResult]
) -> None:
    """Replace what the sync of the stream before lacked."""
    connection.execute(
        f"create or replace table {stream.missing_table} "
        "(page_index bigint, reason varchar, query varchar, snapshot_id varchar, noted_at timestamptz)"
    )
    query = msgspec.json.encode(snapshot.query).decode()
    for result in failed:
        connection.execute(
            f"insert into {stream.missing_table} values (?, ?, ?, ?, now())",
            [result.page_index, result.error, query, snapshot.id],
        )


def missing_pages(connection: duckdb.DuckDBPyConnection, stream: SnapshotStream) -> MissingPages | None:
    """The pages that the last sync lacks, maybe none; None where no sync has said it here."""
    if not table_exists(connection, stream.missing_table):
        return None
    rows = connection.execute(
        f"select page_index, query, snapshot_id from {stream.missing_table} order by 1"
    ).fetchall()
    if not rows:
        return MissingPages(stream.query(), "", [])
    _, query, snapshot_id = rows[0]
    return MissingPages(msgspec.json.decode(query, type=stream.query), snapshot_id, [page for page, *_ in rows])
