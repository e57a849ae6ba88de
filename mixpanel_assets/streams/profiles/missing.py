"""`mixpanel.missing_pages`: what the last sync of profiles asked for and did not get.

It is written in the transaction that stores the rest, so whoever reads the tables sees what they lack, and what
failed in a sync that left no history in Dagster can be fetched again. A sync that stored nothing leaves it as it is.
"""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb
import msgspec

from mixpanel_assets.storage.warehouse import table_exists
from mixpanel_assets.streams.profiles.query import ProfileQuery
from mixpanel_assets.streams.profiles.staged import PageResult, Snapshot

PAGES_TABLE = "missing_pages"


@dataclass(frozen=True)
class MissingPages:
    """Pages that the last sync of profiles lacks: of which snapshot, and what it asked for."""

    query: ProfileQuery
    snapshot_id: str
    pages: list[int]


def note_pages(connection: duckdb.DuckDBPyConnection, snapshot: Snapshot, failed: Sequence[PageResult]) -> None:
    """Replace what the sync of profiles before lacked."""
    connection.execute(
        f"create table if not exists {PAGES_TABLE} "
        "(page_index bigint, reason varchar, query varchar, snapshot_id varchar, noted_at timestamptz)"
    )
    connection.execute(f"delete from {PAGES_TABLE}")
    for result in failed:
        connection.execute(
            f"insert into {PAGES_TABLE} values (?, ?, ?, ?, now())",
            [result.page_index, result.error, msgspec.json.encode(snapshot.query).decode(), snapshot.id],
        )


def missing_pages(connection: duckdb.DuckDBPyConnection) -> MissingPages | None:
    """The pages that the last sync of profiles lacks, maybe none; None where no sync has said it here."""
    if not table_exists(connection, PAGES_TABLE):
        return None
    rows = connection.execute(f"select page_index, query, snapshot_id from {PAGES_TABLE} order by 1").fetchall()
    if not rows:
        return MissingPages(ProfileQuery(), "", [])
    _, query, snapshot_id = rows[0]
    return MissingPages(msgspec.json.decode(query, type=ProfileQuery), snapshot_id, [page for page, *_ in rows])
