"""Which properties there are: a table with one row per property, brought up to date from the rows of a source.

    property_columns       which column each property was given; a name once given never moves
    profile_properties     the catalogue of `profiles`
    event_properties       the catalogue of `events`: per event name, and with event_name NULL for all events
    event_property_days    the counts of each day of events, so that only days that changed are counted again

Counting is counting.py's, and names are naming.py's. Opening and committing are storage/warehouse.py's.
"""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from mixpanel_assets.errors import WarehouseError
from mixpanel_assets.properties import counting, naming, statistics
from mixpanel_assets.properties.sources import Source
from mixpanel_assets.storage.columns import Column, create_table
from mixpanel_assets.storage.warehouse import bound_memory, count, current_schema, table_exists

COLUMNS_TABLE = "property_columns"
# A property of events is current if it came within the newest days; old days keep those that have gone out of use.
CURRENT_DAYS = 7
# A million events with 300 properties took 353 MB; what grows with their number DuckDB writes to disk. Rows that hold
# 100 kB of JSON on average need more, since it reads 2,048 at a time.
MEMORY_MB = 400

# The first type that takes all kinds seen; VARCHAR takes whatever is left. A double takes no integer beyond 2^53.
_TYPES = (
    ("BOOLEAN", ("boolean",)),
    ("BIGINT", ("integer", "bigint")),
    ("HUGEINT", ("integer", "bigint", "hugeint")),
    ("DOUBLE", ("integer", "number")),
    ("DATE", ("date",)),
    ("TIMESTAMP", ("date", "datetime")),
    ("JSON", ("list", "object")),
)
COLUMNS = (
    Column("event_name", "VARCHAR", "The event; NULL: over all events, or of profiles."),
    Column("name", "VARCHAR", "The property's exact name.", nullable=False),
    Column("column_name", "VARCHAR", "Its column in the typed view.", nullable=False),
    Column("column_type", "VARCHAR", "That column's type: the first that takes all kinds seen.", nullable=False),
    Column("types", "MAP(VARCHAR, DOUBLE)", "Kinds of values, each with its share.", nullable=False),
    Column("rows", "BIGINT", "Rows that have the property.", nullable=False),
    Column("share", "DOUBLE", "Their share of all rows, 0 to 1.", nullable=False),
    Column("distinct_values", "BIGINT", "Different values, estimated.", nullable=False),
    Column("examples", "VARCHAR[]", "Some values.", nullable=False),
    Column("first_seen", "TIMESTAMP", "When it was first catalogued, UTC."),
    Column("last_seen", "TIMESTAMP", "When it was last there, UTC."),
    Column("is_current", "BOOLEAN", "Whether it is still there.", nullable=False),
)


@dataclass(frozen=True)
class Drift:
    """What is otherwise than at the last update, by exact names; `retyped` as name, type before, type now."""

    new: tuple[str, ...]
    gone: tuple[str, ...]
    retyped: tuple[tuple[str, str, str], ...]


def update(connection: duckdb.DuckDBPyConnection, source: Source, memory_mb: int = MEMORY_MB) -> Drift:
    """Bring the catalogue of a source up to date, within the caller's transaction.

    Raises:
        WarehouseError: the source was never synced.
    """
    if not table_exists(connection, source.table):
        table = f"{current_schema(connection)}.{source.table}"
        raise WarehouseError(f"there is no table {table} yet: materialize the asset {source.table} first")
    bound_memory(connection, memory_mb)
    _create_tables(connection, source)
    counting.count_days(connection) if source.by_event else counting.count_rows(connection, source)
    name_columns(connection, source.owner, _unnamed(connection, source), taken=(*source.columns, "properties"))
    _catalogue_anew(connection, source)
    drift = _drift(connection, source)
    connection.execute(f"delete from {source.catalogue}")
    connection.execute(f"insert into {source.catalogue} by name from catalogue")
    connection.execute("drop table catalogue; drop table counted")
    return drift


def name_columns(
    connection: duckdb.DuckDBPyConnection, owner: str, names: Sequence[str], taken: Sequence[str] = ()
) -> None:
    """Give those names that have none a column in `property_columns`, for good."""
    given = connection.execute(f"select column_name from {COLUMNS_TABLE} where owner = ?", [owner]).fetchall()
    columns = naming.columns_for(names, taken={*taken, *(column for (column,) in given)})
    first = len(given)
    connection.execute(
        f"insert into {COLUMNS_TABLE} select ?, unnest(?::varchar[]), unnest(?::varchar[]), unnest(?::bigint[])",
        [owner, list(columns), list(columns.values()), list(range(first, first + len(columns)))],
    )


def create_columns_table(connection: duckdb.DuckDBPyConnection) -> None:
    """The table that remembers names, if it is not there."""
    connection.execute(
        f"create table if not exists {COLUMNS_TABLE} (owner varchar, name varchar, column_name varchar, place bigint)"
    )


def _create_tables(connection: duckdb.DuckDBPyConnection, source: Source) -> None:
    create_columns_table(connection)
    create_table(connection, source.catalogue, COLUMNS)


def _unnamed(connection: duckdb.DuckDBPyConnection, source: Source) -> list[str]:
    """Properties without a column, those that were there first first."""
    rows = connection.execute(
        f"select name from counted anti join (from {COLUMNS_TABLE} where owner = ?) using (name) "
        "group by name order by min(first_seen), name",
        [source.owner],
    ).fetchall()
    return [name for (name,) in rows]


def _catalogue_anew(connection: duckdb.DuckDBPyConnection, source: Source) -> None:
    """Table `catalogue`: what is counted, and what was catalogued before and is no longer there."""
    groups = "grouping sets ((event_name, name, kind), (name, kind))" if source.by_event else "event_name, name, kind"
    totals = "grouping sets ((event_name), ())" if source.by_event else "()"
    event_of_row = "event_name" if source.by_event else "null::varchar as event_name"
    connection.execute(
        f"""
        create temp table catalogue as
        with kinds as (
            select event_name, name, kind, sum(rows)::bigint as rows, min(first_seen) as first_seen,
                   max(last_seen) as last_seen, min(low) as low, max(high) as high, bit_or(sketch) as sketch
            from counted group by {groups}
        ),
        properties as (
            select event_name, name, {_type_of("list(kind) filter (kind <> 'null')")} as column_type,
                   map(list(kind order by rows desc), list(rows order by rows desc)) as kinds,
                   sum(rows)::bigint as rows, bit_or(sketch) filter (kind <> 'null') as sketch,
                   list_sort(list_distinct(flatten([list(low), list(high)])))[:5] as examples,
                   min(first_seen) as first_seen, max(last_seen) as last_seen
            from kinds group by event_name, name
        ),
        totals as (select {event_of_row}, count(*) as rows from {source.rows} group by {totals})
        select now.event_name, now.name, given.column_name,
               coalesce(now.column_type, before.column_type, 'VARCHAR') as column_type,
               map(map_keys(now.kinds), [n / now.rows for n in map_values(now.kinds)]) as types,
               now.rows, now.rows / totals.rows as share, {statistics.different("now.sketch")} as distinct_values,
               now.examples, {_first_seen(source)} as first_seen, now.last_seen, {_is_current(source)} as is_current
        from properties as now
        join (from {COLUMNS_TABLE} where owner = '{source.owner}') as given using (name)
        join totals on totals.event_name is not distinct from now.event_name
        left join {source.catalogue} as before
            on before.name = now.name and before.event_name is not distinct from now.event_name
        union all by name
        select * replace (0 as rows, 0 as share, 0 as distinct_values, map()::map(varchar, double) as types,
                          false as is_current)
        from {source.catalogue} as before
        where not exists (
            from properties as now
            where now.name = before.name and now.event_name is not distinct from before.event_name
        )
        """
    )


def _type_of(kinds: str) -> str:
    """An expression for the type that takes all values; NULL when nothing but null was seen."""
    cases = " ".join(f"when list_has_all({list(fitting)}, {kinds}) then '{name}'" for name, fitting in _TYPES)
    return f"case when {kinds} is null then null {cases} else 'VARCHAR' end"


def _first_seen(source: Source) -> str:
    """Profiles only have the time of their last sync."""
    return "now.first_seen" if source.by_event else "least(now.first_seen, before.first_seen)"


def _is_current(source: Source) -> str:
    if not source.by_event:
        return "true"
    return f"now.last_seen::date > (select max(event_time)::date - {CURRENT_DAYS} from {source.table})"


def _drift(connection: duckdb.DuckDBPyConnection, source: Source) -> Drift:
    """Of all events together, not of each: what moves between events is no drift. At first nothing is."""
    if not count(connection, f"select count(*) from {source.catalogue}"):
        return Drift((), (), ())
    rows = connection.execute(
        f"""
        select now.name, now.is_current, coalesce(before.is_current, false), before.column_type, now.column_type
        from catalogue as now left join {source.catalogue} as before
            on before.name = now.name and before.event_name is null
        where now.event_name is null and (
            now.is_current <> coalesce(before.is_current, false) or before.column_type <> now.column_type
        )
        order by now.name
        """
    ).fetchall()
    return Drift(
        new=tuple(name for name, is_there, was_there, _, _ in rows if is_there and not was_there),
        gone=tuple(name for name, is_there, was_there, _, _ in rows if was_there and not is_there),
        retyped=tuple((name, old, new) for name, _, _, old, new in rows if old is not None and old != new),
    )
