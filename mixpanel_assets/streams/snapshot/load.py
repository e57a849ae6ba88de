"""How staged pages become the rows of a stream's table.

A complete snapshot replaces what its query could have served; an incomplete one, or one with fewer different rows than
the server reports, is merged by key and removes nothing.
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
from mixpanel_assets.storage.columns import create_table, is_newer
from mixpanel_assets.storage.rejected_rows import REJECTED_TABLE, add_rejected_rows, create_rejected_rows
from mixpanel_assets.storage.warehouse import count
from mixpanel_assets.streams.snapshot import changes, history, incremental, missing
from mixpanel_assets.streams.snapshot.staged import StagedSnapshot
from mixpanel_assets.streams.snapshot.stream import FILTER

_MEMORY_MB = 128
_MEMORY_MB_PER_MILLION = 32
_BATCH_BYTES = 16 << 20
# What DuckDB keeps of a file until the insert ends, however small: 480 files of 8 kB took 120 MB.
_LEAST_BYTES = 256 << 10
_SMALLEST_LINE_LIMIT = 1 << 20
# Rows of a sync that began later.
_NEWER = is_newer("synced_at", "$began")
# One number that orders rows as they were served.
_PLACE = "page << 32 | row"


@dataclass(frozen=True)
class Published:
    """What a publish did to the table.

    Attributes:
        rows: Rows now stored.
        added: Rows that are new.
        removed: Rows that were removed.
        duplicates: Rows that were served more than once.
        missing: Rows that were reported, or due on the pages that came, and did not come; None where it is unknown.
        newer: Rows that are newer than the snapshot, and stayed.
        absent: Properties that were asked for, and that no row has that came.
        history: What was added to the history; None where none is kept, or the sync says nothing of it.
    """

    rows: int
    added: int
    removed: int
    duplicates: int
    missing: int | None = 0
    newer: int = 0
    absent: tuple[str, ...] = ()
    history: history.Noted | None = None


def publish(connection: duckdb.DuckDBPyConnection, staged: StagedSnapshot) -> Published:
    """Bring staged pages into the table, within the caller's transaction.

    Raises:
        WarehouseError: the snapshot would remove more than it may, or all that is stored is newer.
    """
    return _Load(connection, staged).publish()


class _Load:
    """One publish: what it reads and writes, and the SQL that is the stream's."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, staged: StagedSnapshot) -> None:
        stream, query = staged.stream, staged.snapshot.query
        self._connection = connection
        self._staged = staged
        self._stream = stream
        self._table, self._key, self._keys = stream.name, stream.key.name, ", ".join(stream.row_key)
        # Other parts may have the same key: their rows are none of a snapshot's business.
        part = "" if stream.part is None else stream.part.name
        self._in_scope, self._scope = _scope_of(staged, part)
        not_whole, self._not_whole = _not_whole(staged, part)
        self._filter = {"filter": query.filter_text}
        self._began = {"began": staged.snapshot.started_at}
        # Rows that would have been served if Mixpanel still had them.
        self._removable = (
            f"{self._in_scope} and not {not_whole} "
            f"and ($filter is null or sync_filter = $filter) and {_NEWER} is not true"
        )
        texts = ", ".join(f"{name}: 'VARCHAR'" for name in self._staged_columns)
        self._staged_rows = (
            "read_json($files, format = 'newline_delimited', maximum_object_size = $line_limit, columns = "
            f"{{page: 'BIGINT', row: 'BIGINT', {texts}}})"
        )

    @property
    def _staged_columns(self) -> Sequence[str]:
        content = self._stream.content
        return self._stream.row_key if content is None else (*self._stream.row_key, content.name)

    def publish(self) -> Published:
        self._create_tables()
        before = self._count(f"from {self._table}")
        self._limit_memory(before)
        self._choose_rows()
        served = sum(page.rows for page in self._staged.pages)
        distinct = self._count("from chosen_rows")
        self._leave_newer()
        chosen = self._count("from chosen_rows")
        stored = (
            f"from {self._table} where {self._in_scope} and ({self._keys}) in (select {self._keys} from chosen_rows)"
        )
        kept = self._count(stored, **self._scope)
        # A page that repeats rows of another has them in place of its own: those who lack are not gone from Mixpanel.
        is_all = self._staged.complete and (self._staged.total is None or distinct >= self._staged.total)
        incremental.note(self._connection, self._staged)
        # Of a stream in parts only those that came whole are removable.
        is_all = (is_all or self._stream.part is not None) and not self._staged.snapshot.query.is_incremental
        changes.note(self._connection, self._stream, self._removable, self._values_of_removable)
        removed = self._remove_gone() if is_all else 0
        self._connection.execute(f"delete {stored}", self._scope)
        self._insert_chosen()
        self._connection.execute("drop table chosen_rows")
        self._replace_rejected()
        missing.note_pages(self._connection, self._stream, self._staged.snapshot, self._staged.failed)
        noted = history.note(self._connection, self._staged)
        return Published(
            rows=before - removed + chosen - kept,
            added=chosen - kept,
            removed=removed,
            duplicates=served - distinct,
            missing=self._missing(distinct),
            newer=distinct - chosen,
            absent=self._absent_properties() if chosen else (),
            history=noted,
        )

    def _count(self, what: str, **values: object) -> int:
        return count(self._connection, f"select count(*) {what}", values)

    def _missing(self, distinct: int) -> int | None:
        staged = self._staged
        if staged.total is not None:
            return max(0, staged.total - distinct - sum(page.rejected for page in staged.pages))
        all_came = {page.page_index for page in staged.failed} <= {page.page_index for page in staged.pages}
        return sum(page.missing for page in staged.pages) if all_came else None

    def _absent_properties(self) -> tuple[str, ...]:
        """Properties that were asked for, may be kept, and that none of the rows just stored has."""
        query = self._staged.snapshot.query
        content = self._stream.content
        if not query.named_properties or content is None:
            return ()
        rows = self._connection.execute(
            f"select distinct unnest(json_keys({content.name})) from {self._table} "
            f"where {self._in_scope} and synced_at = $began",
            {**self._scope, **self._began},
        ).fetchall()
        there = {PROFILE_ID, *(name for (name,) in rows)}
        return tuple(name for name in query.named_properties if query.kept.keeps(name) and name not in there)

    def _create_tables(self) -> None:
        create_table(self._connection, self._table, self._stream.table_columns, [FILTER])
        create_rejected_rows(self._connection)

    def _choose_rows(self) -> None:
        """Table `chosen_rows`: each staged row, its place (of one served twice the last), and whose it is.

        A row that only ever came with one filter is that filter's, and goes when it leaves it; any other is nobody's.
        """
        key, keys = self._key, self._stream.row_key
        columns = ", ".join(f"{name} varchar" for name in keys)
        self._connection.execute(f"create temp table chosen_rows ({columns}, place bigint, sync_filter varchar)")
        files = [self._staged.folder.rows_file(page.page_index) for page in self._staged.pages if page.rows]
        if files:
            self._connection.execute(
                f"""
                insert into chosen_rows
                select {", ".join(f"chosen.{name}" for name in keys)}, place,
                       case when stored.{key} is null or stored.sync_filter = $filter then $filter end
                from (select {self._keys}, max({_PLACE}) as place from {self._staged_rows} group by all) as chosen
                left join (from {self._table} where {self._in_scope}) as stored on {_same("stored", "chosen", keys)}
                """,
                {"files": _names(files), "line_limit": self._line_limit(), **self._scope, **self._filter},
            )

    def _leave_newer(self) -> None:
        """Take out of `chosen_rows` what a sync that began later has stored.

        Where that sync left nothing older, it was whole: what only this snapshot holds is gone from Mixpanel since.
        """
        scope = {**self._scope, **self._began}
        [(newer, older)] = self._connection.execute(
            f"select count(*) filter ({_NEWER}), count(*) filter ({_NEWER} is not true) "
            f"from {self._table} where {self._in_scope}",
            scope,
        ).fetchall()
        if newer and not older:
            raise WarehouseError(
                f"this sync began at {self._staged.snapshot.started_at:%H:%M:%S} UTC, and one that began later has "
                f"stored all {newer} {self._stream.name}: the table is as it was, which is newer; sync again for what "
                "changed since"
            )
        if newer:
            self._connection.execute(
                f"delete from chosen_rows where ({self._keys}) in "
                f"(select {self._keys} from {self._table} where {self._in_scope} and {_NEWER})",
                scope,
            )

    def _remove_gone(self) -> int:
        """Remove what the snapshot would hold if Mixpanel still had it. Returns how many."""
        scope = self._values_of_removable
        removable = f"from {self._table} where {self._removable}"
        gone = f"{removable} and ({self._keys}) not in (select {self._keys} from chosen_rows)"
        before, removed = self._count(removable, **scope), self._count(gone, **scope)
        self._refuse_large_removal(before, removed)
        if self._stream.guards_parts and self._stream.part is not None:
            part = self._stream.part.name
            counts = f"select {part}, count(*), count(*) filter (({self._keys}) not in (select {self._keys} from "
            counts += f"chosen_rows)) {removable} group by all order by all"
            for name, of_part, gone_of_part in self._connection.execute(counts, scope).fetchall():
                self._refuse_large_removal(of_part, gone_of_part, f" of {part} {name}")
        self._connection.execute(f"delete {gone}", scope)
        return removed

    @property
    def _values_of_removable(self) -> dict[str, object]:
        return {**self._scope, **self._not_whole, **self._filter, **self._began}

    def _insert_chosen(self) -> None:
        # JSON travels as text inside the JSON line: cast to JSON it stays as served, where reading it as JSON would
        # rewrite numbers.
        derived, content = self._stream.columns, self._stream.content
        names = [*self._staged_columns, *(column.name for column in derived), "synced_at", "sync_filter"]
        values = [f"staged.{name}" for name in self._stream.row_key]
        values += [*([] if content is None else [f"{content.name}::json"]), *(column.value for column in derived)]
        insert = f"""
            insert into {self._table} ({", ".join(names)})
            select {", ".join(values)}, $synced_at, sync_filter
            from {self._staged_rows} as staged
            join chosen_rows as chosen on {_same("chosen", "staged", self._stream.row_key)} and chosen.place = {_PLACE}
            """
        snapshot = self._staged.snapshot
        same = {"line_limit": self._line_limit(), "synced_at": snapshot.started_at, **snapshot.query.sql_values}
        for files in _batches(
            [self._staged.folder.rows_file(page.page_index) for page in self._staged.pages if page.rows]
        ):
            self._connection.execute(insert, {"files": _names(files), **same})

    def _limit_memory(self, stored: int) -> None:
        """Bound DuckDB's memory: it spills the rest to disk.

        One thread, since each holds some 30 MB to insert and two line buffers to read. What grows with the number of
        rows is what DuckDB needs to tell which go and which stay; 10 million took less than 256 MB.
        """
        rows = stored + sum(page.rows for page in self._staged.pages)
        megabytes = _MEMORY_MB + 4 * (self._line_limit() >> 20) + _MEMORY_MB_PER_MILLION * rows // 1_000_000
        self._connection.execute("set threads = 1")
        self._connection.execute(f"set memory_limit = '{megabytes}MB'")

    def _line_limit(self) -> int:
        """What DuckDB is told of the longest line, in bytes; it sizes its read buffers by it."""
        return max([_SMALLEST_LINE_LIMIT, *(page.longest_line + 1 for page in self._staged.pages)])

    def _refuse_large_removal(self, before: int, removed: int, of_part: str = "") -> None:
        most = self._staged.max_removed_fraction
        if removed > before * most:
            share = removed / before
            needed = math.ceil(share * 100) / 100
            raise WarehouseError(
                f"refused to remove {removed} of {before} stored {self._stream.name}{of_part} ({share:.0%}), the limit "
                f"is {most:.0%}: the table is as it was; if they are really gone, sync again with "
                f"max_removed_fraction={needed:.2f}"
            )

    def _replace_rejected(self) -> None:
        staged, name = self._staged, self._stream.name
        in_scope, scope = _scope_of(staged, "part")
        self._connection.execute(
            f"delete from {REJECTED_TABLE} where asset = $asset and (part is null or {in_scope})",
            {"asset": name, **scope},
        )
        for page in staged.pages:
            if page.rejected:
                file = staged.folder.rejected_file(page.page_index)
                longest, began = max(_SMALLEST_LINE_LIMIT, file.stat().st_size), staged.snapshot.started_at
                part = staged.part_of(page)
                add_rejected_rows(self._connection, [file], longest, asset=name, synced_at=began, part=part)


def _scope_of(staged: StagedSnapshot, part: str) -> tuple[str, dict[str, object]]:
    """The condition, with its values, for the stored rows that a snapshot speaks of; `part`: the column that tells."""
    parts = staged.snapshot.parts
    if parts is None:
        return "true", {}
    came = [staged.part_of(page) for page in staged.pages]
    if parts.are_all:
        absent = [name for name in parts.names if name not in came]
        return f"not list_contains($parts::varchar[], {part})", {"parts": absent}
    return f"list_contains($parts::varchar[], {part})", {"parts": [*filter(None, came), *parts.empty]}


def _not_whole(staged: StagedSnapshot, part: str) -> tuple[str, dict[str, object]]:
    """The condition, with its values, for rows of parts that came in part, so that what lacks may be there still."""
    if staged.snapshot.parts is None:
        return "false", {}
    torn = [staged.part_of(page) for page in staged.pages if page.page_index and not page.whole]
    return f"list_contains($not_whole::varchar[], {part})", {"not_whole": torn}


def _same(one: str, other: str, names: Sequence[str]) -> str:
    return " and ".join(f"{one}.{name} = {other}.{name}" for name in names)


def _batches(files: Sequence[Path]) -> Iterator[list[Path]]:
    """The files in order, some `_BATCH_BYTES` at a time: an insert holds what it reads until it ends."""
    batch: list[Path] = []
    size = 0
    for file in files:
        batch.append(file)
        size += max(file.stat().st_size, _LEAST_BYTES)
        if size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _names(files: Sequence[Path]) -> list[str]:
    return [str(file) for file in files]
