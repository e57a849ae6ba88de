"""`mixpanel.profiles`: its columns, and how staged pages become its rows.

A complete snapshot replaces what its query could have served; an incomplete one, or one with fewer different profiles
than the server reports, is merged by key and removes nothing.
So a sync of all profiles removes those that Mixpanel no longer has, and a sync with a filter only those that no other
sync has brought: whoever left the filter may still be there. What a sync that began later has stored stays, whenever
an older snapshot comes. Opening and committing are storage/warehouse.py's.
"""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from mixpanel_assets.client.property_filter import PROFILE_ID
from mixpanel_assets.errors import WarehouseError
from mixpanel_assets.storage.rejected_rows import REJECTED_TABLE, create_rejected_rows
from mixpanel_assets.storage.warehouse import compression, count
from mixpanel_assets.streams.profiles import missing
from mixpanel_assets.streams.profiles.staged import PageResult, Snapshot, SnapshotFolder

TABLE = "profiles"
_MEMORY_MB = 128
_MEMORY_MB_PER_MILLION = 32
_BATCH_BYTES = 16 << 20
_SMALLEST_LINE_LIMIT = 1 << 20
_STAGED_ROWS = (
    "read_json($files, format = 'newline_delimited', maximum_object_size = $line_limit, "
    "columns = {page: 'BIGINT', row: 'BIGINT', distinct_id: 'VARCHAR', properties: 'VARCHAR'})"
)
# A group may have the id of a user: rows of other groups are none of a snapshot's business.
_OF_GROUP = "data_group_id is not distinct from $group"
# Rows of a sync that began later. What lies in the future a wrong clock has written, and would be newer for ever.
_NEWER = "(synced_at > $began and synced_at <= now())"
# Rows that would have been served if Mixpanel still had them.
_REMOVABLE = f"{_OF_GROUP} and ($filter is null or sync_filter = $filter) and {_NEWER} is not true"
# One number that orders rows as they were served.
_PLACE = "page << 32 | row"


@dataclass(frozen=True)
class StagedProfiles:
    """Pages that came, and how they may be published.

    Attributes:
        snapshot: The snapshot they belong to.
        pages: The pages whose rows are staged.
        failed: Those to be fetched again: they did not come, or short.
        folder: Where.
        complete: Whether they are all pages with all rows that were due, none set aside.
        total: Profiles that there should be, None if the server does not say.
        max_removed_fraction: Largest share of the stored profiles that a complete snapshot may remove.
    """

    snapshot: Snapshot
    pages: tuple[PageResult, ...]
    failed: tuple[PageResult, ...]
    folder: SnapshotFolder
    complete: bool
    total: int | None
    max_removed_fraction: float


@dataclass(frozen=True)
class Published:
    """What a publish did to the table.

    Attributes:
        rows: Rows now stored.
        added: Rows that are new.
        removed: Rows that were removed.
        duplicates: Rows that were served more than once.
        missing: Profiles that were reported, or due on the pages that came, and did not come; None where it is unknown.
        newer: Rows that are newer than the snapshot, and stayed.
        absent: Properties that were asked for, and that no profile has that came.
    """

    rows: int
    added: int
    removed: int
    duplicates: int
    missing: int | None = 0
    newer: int = 0
    absent: tuple[str, ...] = ()


def publish(connection: duckdb.DuckDBPyConnection, staged: StagedProfiles) -> Published:
    """Bring staged pages into the table, within the caller's transaction.

    Raises:
        WarehouseError: the snapshot would remove more than it may, or all that is stored is newer.
    """
    _create_tables(connection)
    before = count(connection, f"select count(*) from {TABLE}")
    _be_frugal(connection, staged)
    _choose_rows(connection, staged)
    served = sum(page.rows for page in staged.pages)
    distinct = count(connection, "select count(*) from chosen_profiles")
    _leave_newer(connection, staged)
    chosen = count(connection, "select count(*) from chosen_profiles")
    stored = f"from {TABLE} where {_OF_GROUP} and distinct_id in (select distinct_id from chosen_profiles)"
    group = {"group": staged.snapshot.query.data_group_id}
    kept = count(connection, f"select count(*) {stored}", group)
    # A page that repeats rows of another has them in place of its own: those who lack are not gone from Mixpanel.
    is_all = staged.complete and (staged.total is None or distinct >= staged.total)
    removed = _remove_gone(connection, staged) if is_all else 0
    connection.execute(f"delete {stored}", group)
    _insert_chosen(connection, staged)
    connection.execute("drop table chosen_profiles")
    _replace_rejected(connection, staged)
    missing.note_pages(connection, staged.snapshot, staged.failed)
    return Published(
        rows=before - removed + chosen - kept,
        added=chosen - kept,
        removed=removed,
        duplicates=served - distinct,
        missing=_missing(staged, distinct),
        newer=distinct - chosen,
        absent=_absent_properties(connection, staged) if chosen else (),
    )


def _missing(staged: StagedProfiles, distinct: int) -> int | None:
    if staged.total is not None:
        return max(0, staged.total - distinct - sum(page.rejected for page in staged.pages))
    all_came = {page.page_index for page in staged.failed} <= {page.page_index for page in staged.pages}
    return sum(page.missing for page in staged.pages) if all_came else None


def _absent_properties(connection: duckdb.DuckDBPyConnection, staged: StagedProfiles) -> tuple[str, ...]:
    """Properties that were asked for, may be kept, and that none of the rows just stored has."""
    query = staged.snapshot.query
    if query.output_properties is None:
        return ()
    rows = connection.execute(
        f"select distinct unnest(json_keys(properties)) from {TABLE} where {_OF_GROUP} and synced_at = $began",
        {"group": query.data_group_id, "began": staged.snapshot.started_at},
    ).fetchall()
    there = {PROFILE_ID, *(name for (name,) in rows)}
    return tuple(name for name in query.output_properties if query.kept.keeps(name) and name not in there)


def _create_tables(connection: duckdb.DuckDBPyConnection) -> None:
    connection.execute(
        f"create table if not exists {TABLE} "
        f"(distinct_id varchar, properties json {compression(connection)}, last_seen timestamp, "
        "synced_at timestamptz, sync_filter varchar, data_group_id varchar)"
    )
    for column in ("sync_filter", "data_group_id"):  # A table of an earlier version has neither.
        connection.execute(f"alter table {TABLE} add column if not exists {column} varchar")
    create_rejected_rows(connection)


def _choose_rows(connection: duckdb.DuckDBPyConnection, staged: StagedProfiles) -> None:
    """Table `chosen_profiles`: each staged profile, its place (of one served twice the last), and whose it is.

    A profile that only ever came with one filter is that filter's, and goes when it leaves it; any other is nobody's.
    """
    connection.execute("create temp table chosen_profiles (distinct_id varchar, place bigint, sync_filter varchar)")
    files = [staged.folder.rows_file(page.page_index) for page in staged.pages if page.rows]
    if files:
        connection.execute(
            f"""
            insert into chosen_profiles
            select chosen.distinct_id, place,
                   case when stored.distinct_id is null or stored.sync_filter = $filter then $filter end
            from (select distinct_id, max({_PLACE}) as place from {_STAGED_ROWS} group by distinct_id) as chosen
            left join (from {TABLE} where {_OF_GROUP}) as stored on stored.distinct_id = chosen.distinct_id
            """,
            {"files": _names(files), "line_limit": _line_limit(staged), **_scope(staged)},
        )


def _leave_newer(connection: duckdb.DuckDBPyConnection, staged: StagedProfiles) -> None:
    """Take out of `chosen_profiles` what a sync that began later has stored.

    Where that sync left nothing older, it was whole: what only this snapshot holds is gone from Mixpanel since.
    """
    snapshot = staged.snapshot
    scope = {"group": snapshot.query.data_group_id, "began": snapshot.started_at}
    [(newer, older)] = connection.execute(
        f"select count(*) filter ({_NEWER}), count(*) filter ({_NEWER} is not true) from {TABLE} where {_OF_GROUP}",
        scope,
    ).fetchall()
    if newer and not older:
        raise WarehouseError(
            f"this sync began at {snapshot.started_at:%H:%M:%S} UTC, and one that began later has stored all {newer} "
            "profiles: the table is as it was, which is newer; sync again for what changed since"
        )
    if newer:
        connection.execute(
            f"delete from chosen_profiles where distinct_id in "
            f"(select distinct_id from {TABLE} where {_OF_GROUP} and {_NEWER})",
            scope,
        )


def _remove_gone(connection: duckdb.DuckDBPyConnection, staged: StagedProfiles) -> int:
    """Remove what the snapshot would hold if Mixpanel still had it. Returns how many."""
    scope = {**_scope(staged), "began": staged.snapshot.started_at}
    gone = f"from {TABLE} where {_REMOVABLE} and distinct_id not in (select distinct_id from chosen_profiles)"
    before = count(connection, f"select count(*) from {TABLE} where {_REMOVABLE}", scope)
    removed = count(connection, f"select count(*) {gone}", scope)
    _refuse_large_removal(before, removed, staged.max_removed_fraction)
    connection.execute(f"delete {gone}", scope)
    return removed


def _scope(staged: StagedProfiles) -> dict[str, str | None]:
    """Which of the stored rows a snapshot can speak of."""
    query = staged.snapshot.query
    return {"group": query.data_group_id, "filter": query.filter_text}


def _insert_chosen(connection: duckdb.DuckDBPyConnection, staged: StagedProfiles) -> None:
    # Properties travel as text inside the JSON line: cast to JSON they stay as served, where reading them as JSON would
    # rewrite numbers.
    insert = f"""
        insert into {TABLE} (distinct_id, properties, last_seen, synced_at, sync_filter, data_group_id)
        select staged.distinct_id, properties::json, try_cast(properties::json ->> '$."$last_seen"' as timestamp),
               $synced_at, sync_filter, $group
        from {_STAGED_ROWS} as staged
        join chosen_profiles as chosen on chosen.distinct_id = staged.distinct_id and chosen.place = {_PLACE}
        """
    snapshot = staged.snapshot
    same = {"line_limit": _line_limit(staged), "synced_at": snapshot.started_at, "group": snapshot.query.data_group_id}
    for files in _batches([staged.folder.rows_file(page.page_index) for page in staged.pages if page.rows]):
        connection.execute(insert, {"files": _names(files), **same})


def _be_frugal(connection: duckdb.DuckDBPyConnection, staged: StagedProfiles) -> None:
    """Bound DuckDB's memory: it spills the rest to disk.

    One thread, since each holds some 30 MB to insert and two line buffers to read. What grows with the number of
    profiles is what DuckDB needs to tell which go and which stay; 10 million took less than 256 MB.
    """
    profiles = count(connection, f"select count(*) from {TABLE}") + sum(page.rows for page in staged.pages)
    megabytes = _MEMORY_MB + 4 * (_line_limit(staged) >> 20) + _MEMORY_MB_PER_MILLION * profiles // 1_000_000
    connection.execute("set threads = 1")
    connection.execute(f"set memory_limit = '{megabytes}MB'")


def _line_limit(staged: StagedProfiles) -> int:
    """What DuckDB is told of the longest line, in bytes; it sizes its read buffers by it."""
    return max([_SMALLEST_LINE_LIMIT, *(page.longest_line + 1 for page in staged.pages)])


def _batches(files: Sequence[Path]) -> Iterator[list[Path]]:
    """The files in order, some `_BATCH_BYTES` at a time: an insert holds what it reads until it ends."""
    batch: list[Path] = []
    size = 0
    for file in files:
        batch.append(file)
        size += file.stat().st_size
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


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
