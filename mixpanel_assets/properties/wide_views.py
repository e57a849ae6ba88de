"""Typed views over the JSON: a column for each property of a catalogue, and the row's own columns and JSON beside them.

    profiles_wide, events_wide      all properties, of users and of events
    group_<id>, group_<id>_wide     the profiles of one group as they are stored, and with all properties
    events_wide_<event name>        one event's, on request; kept up to date from then on

A view holds no data, so a column costs nothing until it is read. A value that came after the last catalogue and does
not fit its column's type is NULL there until the next one; no value makes a query fail. Repeated names in one row: the
first.
"""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import duckdb

from mixpanel_assets.errors import ConfigurationError
from mixpanel_assets.properties import naming
from mixpanel_assets.properties.catalogue import COLUMNS_TABLE, name_columns
from mixpanel_assets.properties.sources import EVENTS, Source
from mixpanel_assets.storage import instants

# Each parse keeps the JSON of 2,048 rows until they are done: one per column took more than 2.7 GB for 300 columns, and
# failed. One for all makes reading one column as slow as reading all. CPU for one, ten and all of 300 columns over a
# million events: 32 a parse 1.7, 1.9 and 13.8 s; 100: 2.4, 2.6, 8.3 s; 300: 6.0, 6.4, 8.3 s. A list of paths in place
# of a STRUCT (`json_extract_string`) looks for each name in the whole row: 32 a parse 20.6 s for all, before any cast.
COLUMNS_PER_PARSE = 32
_EVENT_VIEWS = "events_wide_*"
_UNFOLDED = "unfolded"


@dataclass(frozen=True)
class Column:
    """A property in a view. `structure`: how its nested values are unfolded into STRUCT, as DuckDB writes JSON
    structures; None to leave them JSON."""

    property_name: str
    name: str
    type: str
    structure: str | None = None


@dataclass(frozen=True)
class _Parse:
    """One reading of each row's JSON. `value`: how SQL reads the text of the column at `place` out of `part`."""

    columns: Sequence[Column]
    sql: str
    value: str


def create_views(connection: duckdb.DuckDBPyConnection, source: Source) -> list[str]:
    """Make the views of a source from its catalogue, those asked for earlier included. Returns their names."""
    views = {source.view: _query(source, _columns(connection, source, None))}
    if source.by_event:
        for event, view in _event_views(connection):
            views[view] = _query(EVENTS, _columns(connection, EVENTS, event), f"event_name = {literal(event)}")
    if source.owner != source.table:
        views[source.owner] = f"from {source.rows}"
    for view, query in views.items():
        connection.execute(f'create or replace view "{view}" as {query}')
    return list(views)


def request_event_views(connection: duckdb.DuckDBPyConnection, events: Sequence[str]) -> None:
    """See that `create_views` makes a view for each of these events from now on; `*` stands for all there are.

    Raises:
        ConfigurationError: there is no such event.
    """
    rows = connection.execute(f"select distinct event_name from {EVENTS.table}")
    known = sorted(name for (name,) in rows.fetchall())
    unknown = sorted(set(events) - {*known, "*"})
    if unknown:
        raise ConfigurationError(f"there is no event {unknown[0]!r} among those stored: event names are exact")
    wanted = known if "*" in events else list(events)
    named = {event for event, _ in _event_views(connection)}
    name_columns(connection, _EVENT_VIEWS, [event for event in wanted if event not in named])


def choose_struct_columns(connection: duckdb.DuckDBPyConnection, source: Source, *, unfolded: bool) -> None:
    """Have nested values as STRUCT from now on (or as JSON again)."""
    owner = f"{_UNFOLDED} {source.owner}"
    connection.execute(f"delete from {COLUMNS_TABLE} where owner = ?", [owner])
    if unfolded:
        connection.execute(f"insert into {COLUMNS_TABLE} values (?, '', '', 0)", [owner])


def pointer(name: str) -> str:
    """The SQL text of the JSON pointer to a property: the one way to address any name. `$."..."` paths know no empty
    name and no quote within."""
    return literal("/" + name.replace("~", "~0").replace("/", "~1"))


def _query(source: Source, columns: Sequence[Column], condition: str = "true") -> str:
    parses = list(_parses(columns))
    own = ", ".join(source.columns)
    parsed = "".join(f", {parse.sql} as {_part(i)}" for i, parse in enumerate(parses))
    values = {
        column: parse.value.format(part=_part(i), place=place)
        for i, parse in enumerate(parses)
        for place, column in enumerate(parse.columns, start=1)
    }
    typed = "".join(f", {_typed(values[column], column)} as {_identifier(column.name)}" for column in columns)
    rows = f"select {own}, properties{parsed} from {source.rows} where {condition}"
    return f"select {own}{typed}, properties from ({rows})"


def _parses(columns: Sequence[Column]) -> Iterator[_Parse]:
    """The parses that bring the values of all columns."""
    of_struct = _fields(columns)
    for group in _groups([column for column in columns if column in of_struct]):
        structure = json.dumps({column.property_name: "VARCHAR" for column in group})
        yield _Parse(group, f"json_transform(properties, {literal(structure)})", "struct_extract_at({part}, {place})")
    for group in _groups([column for column in columns if column not in of_struct]):
        pointers = ", ".join(pointer(column.property_name) for column in group)
        yield _Parse(group, f"json_extract_string(properties, [{pointers}])", "{part}[{place}]")


def _fields(columns: Sequence[Column]) -> set[Column]:
    """Those whose properties' names a STRUCT can have: they differ by more than case, DuckDB 2.0 knows no empty one,
    and 1.4 none with a NUL."""
    fields: dict[str, Column] = {}
    for column in columns:
        if column.property_name and "\0" not in column.property_name:
            fields.setdefault(column.property_name.casefold(), column)
    return set(fields.values())


def _groups(columns: Sequence[Column]) -> Iterator[Sequence[Column]]:
    for start in range(0, len(columns), COLUMNS_PER_PARSE):
        yield columns[start : start + COLUMNS_PER_PARSE]


def _typed(value: str, column: Column) -> str:
    if column.type == "VARCHAR":
        return value
    if column.type == "TIMESTAMP":
        return instants.of_text(value)
    cast = f"try_cast({value} as {column.type})"
    return cast if column.structure is None else f"json_transform({cast}, {literal(column.structure)})"


def _columns(connection: duckdb.DuckDBPyConnection, source: Source, event: str | None) -> list[Column]:
    """The columns of a view, in the order in which they were given, so that new ones come last."""
    rows = connection.execute(
        f"select name, catalogue.column_name, column_type from {source.catalogue} as catalogue "
        f"join {COLUMNS_TABLE} as given using (name) where owner = ? and event_name is not distinct from ? "
        "order by place",
        [source.owner, event],
    ).fetchall()
    columns = [Column(*row) for row in rows]
    return list(_unfolded(connection, source, columns)) if _is_unfolded(connection, source) else columns


def _is_unfolded(connection: duckdb.DuckDBPyConnection, source: Source) -> bool:
    owner = f"{_UNFOLDED} {source.owner}"
    return bool(connection.execute(f"select 1 from {COLUMNS_TABLE} where owner = ?", [owner]).fetchall())


def _unfolded(connection: duckdb.DuckDBPyConnection, source: Source, columns: Sequence[Column]) -> Iterator[Column]:
    """The columns with the structure of those that are nested, which costs a look at all rows for each."""
    for column in columns:
        if column.type != "JSON":
            yield column
            continue
        [(structure,)] = connection.execute(
            f"select json_group_structure(json_extract(properties, {pointer(column.property_name)}))::varchar "
            f"from {source.rows}"
        ).fetchall()
        yield Column(column.property_name, column.name, column.type, structure if _is_type(structure) else None)


def _is_type(structure: str | None) -> bool:
    """Whether DuckDB makes a type of it; from 2.0 on, names that only differ by case make none."""
    # DuckDB 1.5 makes of an empty name a struct whose fields have none at all.
    if structure is None or structure in ('"JSON"', '"NULL"') or '"":' in structure:
        return False
    with duckdb.connect() as scratch:
        try:
            scratch.execute(f"select json_transform('null', {literal(structure)})")
        except duckdb.Error:
            return False
    return True


def _event_views(connection: duckdb.DuckDBPyConnection) -> list[tuple[str, str]]:
    rows = connection.execute(
        f"select name, column_name from {COLUMNS_TABLE} where owner = ? order by place", [_EVENT_VIEWS]
    ).fetchall()
    return [(event, f"{EVENTS.view}_{column}"[: naming.MOST_CHARACTERS + 16]) for event, column in rows]


def _part(number: int) -> str:
    # No property's column can be called so: their names hold neither spaces nor capitals.
    return f'"Part {number}"'


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """The SQL of a text."""
    # Before 2.0 DuckDB takes a NUL for the end of the SQL.
    quoted = text.replace("'", "''").replace("\0", "' || chr(0) || '")
    return f"('{quoted}')" if "\0" in text else f"'{quoted}'"
