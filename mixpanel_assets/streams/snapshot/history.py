"""`mixpanel.profile_history` and its like: what each row was, and when; written as the table is, in one transaction.

One row per key and period. What is stored now is compared with the periods that have not ended, so that a sync that
was left out costs no more than the moment of a change. A row that a sync did not bring ends no period; one that it
removed does.
"""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

from dataclasses import dataclass

import duckdb

from mixpanel_assets.storage.columns import Column, create_table
from mixpanel_assets.storage.warehouse import count, table_exists
from mixpanel_assets.streams.snapshot.staged import StagedSnapshot
from mixpanel_assets.streams.snapshot.stream import SnapshotStream

_AFTER_CONTENT = (
    Column("valid_from", "TIMESTAMPTZ", "When the sync began that first saw it so.", nullable=False),
    Column("valid_to", "TIMESTAMPTZ", "When the sync began that saw it so no longer; NULL: it is still so."),
    Column("change", "VARCHAR", "How it began: known (as the history began), new, or changed.", nullable=False),
    Column("changed_properties", "VARCHAR[]", "Names of those that are otherwise than before; NULL unless changed."),
    Column("ended_by", "VARCHAR", "changed, or removed where Mixpanel has it no longer; NULL: it is still so."),
    Column("content_hash", "UBIGINT", "Half of the MD5 of the content's text."),
)


@dataclass(frozen=True)
class Noted:
    """What a sync added: rows in all, periods that began, and that ended because Mixpanel has the row no longer."""

    rows: int
    began: int
    removed: int


def history_columns(stream: SnapshotStream) -> tuple[Column, ...]:
    """The columns of a stream's history."""
    content = () if stream.content is None else (stream.content,)
    return (stream.key, *content, *_AFTER_CONTENT)


def note(connection: duckdb.DuckDBPyConnection, staged: StagedSnapshot) -> Noted | None:
    """Note what publishing has just changed, if it was asked for, or ever was; else None.

    A sync that asked for some properties only says nothing of what changed.
    """
    stream = staged.stream
    if stream.history_table is None or stream.content is None or staged.snapshot.query.named_properties:
        return None
    is_first = not table_exists(connection, stream.history_table)
    if is_first and not staged.keep_history:
        return None
    create_table(connection, stream.history_table, history_columns(stream))
    history = _History(connection, stream, stream.history_table, stream.content.name, staged.snapshot.started_at)
    if is_first:
        return history.begin()
    return history.go_on()


class _History:
    def __init__(
        self, connection: duckdb.DuckDBPyConnection, stream: SnapshotStream, table: str, content: str, began: object
    ) -> None:
        self._connection, self._table, self._content = connection, table, content
        self._stored, self._key, self._began = stream.name, stream.key.name, {"began": began}
        self._hash = f"md5_number_lower(coalesce({content}::varchar, ''))"

    def begin(self) -> Noted:
        """All that is stored, as known since it was last asked for."""
        self._connection.execute(
            f"insert into {self._table} select {self._key}, {self._content}, synced_at, null, 'known', null, null, "
            f"{self._hash} from {self._stored}"
        )
        rows = self._rows()
        return Noted(rows, rows, 0)

    def go_on(self) -> Noted:
        """What is otherwise than the periods say that have not ended."""
        before = self._rows()
        self._find_changes()
        self._connection.execute(
            f"update {self._table} as old set valid_to = greatest($began, valid_from), ended_by = 'changed' "
            f"from changes where old.{self._key} = changes.{self._key} and valid_to is null",
            self._began,
        )
        self._connection.execute(
            f"insert into {self._table} select {self._key}, {self._content}, $began, null, "
            f"if(names is null, 'new', 'changed'), names, null, {self._hash} from changes",
            self._began,
        )
        self._connection.execute("drop table changes")
        gone = f"valid_to is null and {self._key} not in (select {self._key} from {self._stored})"
        removed = count(self._connection, f"select count(*) from {self._table} where {gone}")
        if removed:
            self._connection.execute(
                f"update {self._table} set valid_to = greatest($began, valid_from), ended_by = 'removed' where {gone}",
                self._began,
            )
        rows = self._rows()
        return Noted(rows, rows - before, removed)

    def _rows(self) -> int:
        return count(self._connection, f"select count(*) from {self._table}")

    def _find_changes(self) -> None:
        """Table `changes`: rows that the sync brought, and that are new or not as they were; `names` of what is
        otherwise, NULL where they are new. The same properties in another order are no change."""
        key, content = self._key, self._content
        self._connection.execute(
            f"create temp table differing as select now.{key} as {key}, was.{key} is null as is_new "
            f"from (select {key}, {self._hash} as content_hash from {self._stored} where synced_at = $began) as now "
            f"left join (select {key}, content_hash from {self._table} where valid_to is null) as was using ({key}) "
            f"where was.{key} is null or was.content_hash is distinct from now.content_hash",
            self._began,
        )
        pointer = "'/' || replace(replace(name, '~', '~0'), '/', '~1')"
        self._connection.execute(
            f"""
            create temp table changes as
            with beside as (
                select now.{key}, now.{content}, is_new, was.{content} as before
                from differing join {self._stored} as now using ({key})
                left join (from {self._table} where valid_to is null) as was using ({key})
            )
            select {key}, {content}, case when not is_new then list_sort(list_filter(
                list_distinct(coalesce(json_keys({content}), []) || coalesce(json_keys(before), [])),
                lambda name: json_extract({content}, {pointer})::varchar
                             is distinct from json_extract(before, {pointer})::varchar
            )) end as names
            from beside where is_new or before::varchar is distinct from {content}::varchar
            """
        )
        # Where a property has no other value only their order is another, or there were none and now an empty object.
        self._connection.execute("delete from changes where names = []; drop table differing")
