"""Which rows of `mixpanel.events` are one event, and which of them stays.

By Mixpanel's key: event, time, distinct_id and `$insert_id`; without an `$insert_id` the content is part of it. Once
identities are merged, Mixpanel serves an event under another distinct_id and names the one it had: then it is the same
event too. All else is another event, however alike it looks.
"""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

import json

import duckdb

_KEY = "event_name, event_time, distinct_id, insert_id, case when insert_id is null then properties::varchar end"
KEY_HASH = f"hash({_KEY.replace('properties::varchar', 'hash(properties::varchar)')})"
# Whose event it was before: Mixpanel names the distinct_id in this property.
_BEFORE = """coalesce(properties ->> '$."$distinct_id_before_identity"', distinct_id)"""
# What a merge, and being served anew, changes of an event; its other properties stay.
_OF_MERGE = json.dumps(
    dict.fromkeys(["distinct_id", "$distinct_id_before_identity", "$is_reshuffled", "mp_processing_time_ms"])
)
# What hashes are made of: by them candidates are found.
_EVENT, _WHOSE = "event_name, event_time, insert_id", "distinct_id"


def delete_repeats(connection: duckdb.DuckDBPyConnection, table: str, where: str) -> None:
    """Leave one row of each event, of the rows for which the condition holds. Table `surplus`: id, day and synced_at of
    the others."""
    # One look at all rows for both kinds; what follows looks at those few that it finds.
    connection.execute(f"create temp table alike as {_alike(table, where)}")
    connection.execute(f"create temp table surplus as {_superseded(table)}")
    _delete_surplus(connection, table)
    connection.execute(f"insert into surplus from {_repeated(table, 'alike', 'day')}")
    _delete_surplus(connection, table)
    connection.execute("drop table alike")


def repeated(table: str, where: str, day: str) -> str:
    """A query for rows whose key another row has, which is to stay; of those for which the condition holds."""
    return _repeated(table, f"({_alike(table, where)})", day)


def _delete_surplus(connection: duckdb.DuckDBPyConnection, table: str) -> None:
    connection.execute(f"delete from {table} where rowid in (select id from surplus)")


def _alike(table: str, where: str) -> str:
    """Rows that may be one event, by hashes: `event`, whoever's it is, and `whose`. Columns decide afterwards."""
    return f"""
        with hashed as (
            select rowid as id, hash({_EVENT}) as event, hash({_WHOSE}) as whose
            from {table} where {where}
        )
        from hashed semi join (select event from hashed group by event having count(*) > 1) using (event)
    """


def _repeated(table: str, alike: str, day: str) -> str:
    """Of equal keys the row that Mixpanel processed last stays."""
    return f"""(
        with alike as (from {alike}),
        candidates as (
            select id from alike
            semi join (select event, whose from alike group by all having count(*) > 1) using (event, whose)
        )
        select rowid as id, {day} as day, synced_at from {table} where rowid in (from candidates)
        qualify row_number() over (
            partition by {_KEY}
            order by try_cast(properties ->> 'mp_processing_time_ms' as double) desc nulls last,
                     synced_at desc, properties::varchar
        ) > 1
    )"""


def _superseded(table: str) -> str:
    """Rows that another has replaced, under another distinct_id. A row replaces what its event was in an answer that
    was asked for before; within one answer, the row that still has the distinct_id that it names.

    What lies in the future a wrong clock wrote: it is later than nothing.
    """
    return f"""(
        with candidates as (
            select id from alike
            semi join (select event from alike group by event having min(whose) <> max(whose)) using (event)
        ),
        served as (
            select rowid as id, event_name, event_time, insert_id, distinct_id, day, synced_at, {_BEFORE} as before,
                   case when synced_at <= now() then synced_at else '-infinity' end as asked_at,
                   case when insert_id is null then json_merge_patch(properties, '{_OF_MERGE}')::varchar end as content
            from {table} where rowid in (from candidates)
        )
        select old.id, old.day, old.synced_at from served as old semi join served as new
        on new.event_name = old.event_name and new.event_time = old.event_time
        and new.insert_id is not distinct from old.insert_id and new.content is not distinct from old.content
        and new.distinct_id <> old.distinct_id
        and (
            (new.asked_at > old.asked_at and new.before in (old.before, old.distinct_id))
            or (new.asked_at = old.asked_at and new.before = old.distinct_id and old.before = old.distinct_id)
        )
    )"""
