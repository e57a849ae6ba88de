"""Which ids are one, and which of them Mixpanel goes by today.

Ids that links connect, over however many steps and in whatever order or circle, are a cluster. A request to merge is no
merge: where a cluster cannot be what Mixpanel made, as it is larger than Mixpanel's are or two of its ids have a
profile each, only what Mixpanel itself has proven counts in it.

The canonical id is the one that Mixpanel said last: the distinct_id under which it served an event of another's, or a
profile; failing these, the one that the last request names.
"""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

import duckdb

from mixpanel_assets.identities.links import LINKS
from mixpanel_assets.properties.sources import PROFILES
from mixpanel_assets.storage.warehouse import count, table_exists

# Of one person, by Mixpanel's documentation of merged identities.
MOST_IDS = 500


def find(connection: duckdb.DuckDBPyConnection) -> None:
    """Temporary table `clustered`: distinct_id, canonical_id, ids (of its cluster), is_proven (that the two are one);
    and `doubtful`: the clusters that cannot be what Mixpanel made."""
    _number_ids(connection)
    _connect(connection, "proven", "where is_proof")
    _connect(connection, "wished", "")
    _find_doubtful(connection)
    connection.execute(
        "create temp table chosen as select id, proven.label as proven_label, "
        "if(doubtful.label is null, wished.label, proven.label) as label "
        "from wished join proven using (id) left join doubtful on doubtful.label = wished.label"
    )
    connection.execute(f"create temp table said as {_said(connection)}")
    connection.execute(
        """
        create temp table clustered as
        with canonical as (
            select label, first(id order by strength desc, said_at desc, is_proof desc, distinct_id) as id
            from said join chosen using (id) join numbered using (id) group by label
        ),
        sizes as (select label, count(*) as ids from chosen group by label)
        select numbered.distinct_id, named.distinct_id as canonical_id, ids,
               chosen.proven_label = of_canonical.proven_label as is_proven
        from chosen
        join numbered using (id)
        join sizes using (label)
        join canonical on canonical.label = chosen.label
        join numbered as named on named.id = canonical.id
        join chosen as of_canonical on of_canonical.id = canonical.id
        where ids > 1
        """
    )
    connection.execute("drop table said; drop table chosen; drop table proven; drop table wished")
    connection.execute("drop table pairs; drop table numbered")


def _number_ids(connection: duckdb.DuckDBPyConnection) -> None:
    """Tables `numbered` and `pairs`: the same with numbers for ids, which are quicker to compare."""
    connection.execute(
        f"create temp table numbered as select distinct_id, row_number() over (order by distinct_id) as id "
        f"from (select former_id as distinct_id from {LINKS} union select later_id from {LINKS})"
    )
    connection.execute(
        f"create temp table pairs as select former.id as former, later.id as later, is_proof, max(said_at) as said_at "
        f"from {LINKS} join numbered as former on former.distinct_id = former_id "
        "join numbered as later on later.distinct_id = later_id group by all"
    )


def _connect(connection: duckdb.DuckDBPyConnection, table: str, which: str) -> None:
    """A table of all ids, each with a label that is the same for those that some pairs connect: the least id.

    In each round every label takes the place of the larger ones beside it. 20,000 ids in a chain take 0.3 s.
    """
    connection.execute(f"create temp table {table} as select id, id as label from numbered")
    connection.execute(f"create or replace temp table beside as select distinct former, later from pairs {which}")
    while count(connection, "select count(*) from beside"):
        connection.execute(
            "create or replace temp table given as select greatest(former, later) as label, "
            "min(least(former, later)) as less from beside group by all"
        )
        _follow(connection)
        connection.execute(f"update {table} set label = less from given where {table}.label = given.label")
        connection.execute(
            "create or replace temp table beside as from (select distinct coalesce(one.less, former) as former, "
            "coalesce(other.less, later) as later from beside left join given as one on one.label = former "
            "left join given as other on other.label = later) as now where now.former <> now.later"
        )
    connection.execute("drop table beside; drop table if exists given")


def _follow(connection: duckdb.DuckDBPyConnection) -> None:
    """In `given`, a label whose less one has a less one too gets that, to the end of each chain."""
    further = "from given join given as next on next.label = given.less"
    while count(connection, f"select count(*) {further}"):
        connection.execute(
            "create or replace temp table given as select given.label, coalesce(next.less, given.less) as less "
            "from given left join given as next on next.label = given.less"
        )


def _find_doubtful(connection: duckdb.DuckDBPyConnection) -> None:
    profiles = "select null::bigint as id where false"
    if table_exists(connection, PROFILES.table):
        # Of the last sync alone: one that is gone may stay until a sync is complete.
        profiles = (
            f"select id from numbered semi join (from {PROFILES.table} where synced_at = "
            f"(select max(synced_at) from {PROFILES.table})) using (distinct_id)"
        )
    connection.execute(
        f"create temp table doubtful as select wished.label from wished join proven using (id) "
        f"left join (select id as profile from ({profiles})) on profile = id group by all "
        f"having count(distinct proven.label) > 1 and (count(*) > {MOST_IDS} or count(profile) > 1)"
    )


def _said(connection: duckdb.DuckDBPyConnection) -> str:
    """What Mixpanel, or who asked it, said of canonical ids."""
    said = (
        "select later as id, is_proof::int as strength, is_proof, max(said_at) as said_at from pairs group by all "
        # Of a cluster whose ids were only ever the former ones there is none.
        "union all select id, -1, false, null from numbered"
    )
    if table_exists(connection, PROFILES.table):
        said += (
            f" union all select id, 1, false, max(synced_at) from numbered join {PROFILES.table} using (distinct_id) "
            "group by id"
        )
    return said
