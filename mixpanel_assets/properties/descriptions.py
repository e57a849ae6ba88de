"""What Lexicon says of the columns of a typed view, where it was fetched."""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

import duckdb

from mixpanel_assets.properties.sources import EVENTS, PROFILES, Source
from mixpanel_assets.storage.warehouse import has_column, table_exists

_LEXICON = "lexicon_schemas"
_NEEDED = ("entity_type", "entity_name", "property", "description")
_ENTITY_TYPES = {PROFILES: "profile", EVENTS: "event"}
# It goes into the event log with every update, and stays there.
MOST_COLUMNS = 100
MOST_CHARACTERS = 200


def described_columns(connection: duckdb.DuckDBPyConnection, source: Source) -> list[tuple[str, str, str, str]]:
    """Column, type, the property's exact name and its description, of the properties that are described; the most
    frequent ones, up to `MOST_COLUMNS`. Where events describe a property differently, as most of them do.

    A table of that name that is none of ours says nothing.
    """
    kind = _ENTITY_TYPES.get(source)
    if kind is None or not table_exists(connection, _LEXICON):
        return []
    if not all(has_column(connection, _LEXICON, name) for name in _NEEDED):
        return []
    return connection.execute(
        f"""
        with said as (
            select property::varchar as name, left(trim(description::varchar), {MOST_CHARACTERS + 1}) as description,
                   count(*) as events
            from {_LEXICON} where entity_type::varchar = ? and property is not null group by all
        ),
        mostly as (
            select name, first(description order by events desc, description) as description
            from said where description <> '' group by name
        )
        select column_name, column_type, name, description from {source.catalogue} join mostly using (name)
        where event_name is null order by share desc, name limit {MOST_COLUMNS}
        """,
        [kind],
    ).fetchall()
