"""`mixpanel.profiles`: its columns, and how staged pages become its rows.

A complete snapshot replaces the table; an incomplete one is merged by key and removes nothing. Opening and committing
are warehouse.py's.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from mixpanel_assets.errors import WarehouseError
from mixpanel_assets.staging import PageResult, Snapshot, SnapshotFolder
from mixpanel_assets.warehouse import count

TABLE = "profiles"
REJECTED_TABLE = "rejected_rows"
# DuckDB sizes its read buffers by the longest line it is told to expect; a staged line is never longer than its file.
_SMALLEST_LINE_LIMIT = 1 << 20


@dataclass(frozen=True)
class StagedProfiles:
    """Pages that came, and how they may be published.

    Attributes:
        snapshot: The snapshot they belong to.
        pages: The pages whose rows are staged.
        folder: Where.
        complete: Whether they are all there is, so that what they lack is gone from Mixpanel.
        max_removed_fraction: Largest share of the stored profiles that a complete snapshot may remove.
    """

    snapshot: Snapshot
    pages: tuple[PageResult, ...]
    folder: SnapshotFolder
    complete: bool
    max_removed_fraction: float


@dataclass(frozen=True)
class Published:
    """What a publish did to the table: rows now stored, rows new, removed, and served more than once."""

    rows: int
    added: int
    removed: int
    duplicates: int


def publish(connection: duckdb.DuckDBPyConnection, staged: StagedProfiles) -> Published:
    """Bring staged pages into the table, within the caller's transaction.

    Raises:
        WarehouseError: the snapshot would remove more than it may.
    """
    _create_tables(connection)
    before = count(connection, f"select count(*) from {TABLE}")
    _load_staged(connection, staged)
    served = sum(page.rows for page in staged.pages)
    distinct = count(connection, "select count(*) from staged_profiles")
    kept = count(connection, f"select count(*) from {TABLE} semi join staged_profiles using (distinct_id)")
    removed = before - kept if staged.complete else 0
    _refuse_large_removal(before, removed, staged.max_removed_fraction)
    if staged.complete:
        connection.execute(f"delete from {TABLE}")
    else:
        connection.execute(f"delete from {TABLE} where distinct_id in (select distinct_id from staged_profiles)")
    connection.execute(
        f"insert into {TABLE} (distinct_id, properties, last_seen, synced_at) "
        "select distinct_id, properties, last_seen, ? from staged_profiles order by page, row",
        [staged.snapshot.started_at],
    )
    connection.execute("drop table staged_profiles")
    _replace_rejected(connection, staged)
    return Published(
        rows=before - removed + distinct - kept, added=distinct - kept, removed=removed, duplicates=served - distinct
    )


def _create_tables(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(
        f"create table if not exists {TABLE} "
        "(distinct_id varchar, properties json, last_seen timestamp, synced_at timestamptz)"
    )
    connection.execute(
        f"create table if not exists {REJECTED_TABLE} "
        "(asset varchar, source varchar, row_number bigint, reason varchar, row varchar, synced_at timestamptz)"
    )


def _load_staged(connection: duckdb.DuckDBPyConnection, staged: StagedProfiles) -> None:
    """Table `staged_profiles`: of profiles served twice the one served last, by page and row."""
    connection.execute(
        "create temp table staged_profiles "
        "(page integer, row integer, distinct_id varchar, properties json, last_seen timestamp)"
    )
    files = [staged.folder.rows_file(page.page_index) for page in staged.pages if page.rows]
    if not files:
        return
    # Properties travel as text inside the JSON line: cast to JSON they stay as served, where reading them as JSON would
    # rewrite numbers.
    connection.execute(
        """
        insert into staged_profiles
        select page, row, distinct_id, properties::json, try_cast(properties::json ->> '$."$last_seen"' as timestamp)
        from read_json(?, format = 'newline_delimited', maximum_object_size = ?,
                       columns = {page: 'INTEGER', row: 'INTEGER', distinct_id: 'VARCHAR', properties: 'VARCHAR'})
        qualify row_number() over (partition by distinct_id order by page desc, row desc) = 1
        """,
        [_names(files), max(_SMALLEST_LINE_LIMIT, *(file.stat().st_size for file in files))],
    )


def _refuse_large_removal(before: int, removed: int, most: float) -> None:
    if removed > before * most:
        share = removed / before
        needed = math.ceil(share * 100) / 100
        raise WarehouseError(
            f"refused to remove {removed} of {before} stored profiles ({share:.0%}), the limit is {most:.0%}: "
            f"the table is as it was; if they are really gone, sync again with max_removed_fraction={needed:.2f}"
        )


def _replace_rejected(connection: duckdb.DuckDBPyConnection, staged: StagedProfiles) -> None:
    connection.execute(f"delete from {REJECTED_TABLE} where asset = 'profiles'")
    files = [staged.folder.rejected_file(page.page_index) for page in staged.pages if page.rejected]
    if files:
        connection.execute(
            f"insert into {REJECTED_TABLE} select 'profiles', source, row, reason, text, ? from read_json(?, "
            "format = 'newline_delimited', maximum_object_size = ?, "
            "columns = {source: 'VARCHAR', row: 'BIGINT', reason: 'VARCHAR', text: 'VARCHAR'})",
            [
                staged.snapshot.started_at,
                _names(files),
                max(_SMALLEST_LINE_LIMIT, *(file.stat().st_size for file in files)),
            ],
        )


def _names(files: Sequence[Path]) -> list[str]:
    return [str(file) for file in files]
