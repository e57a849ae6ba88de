"""What Lexicon says of a view's columns: as text, bounded, and nothing where there is no Lexicon."""

import logging
from typing import Any

import dagster as dg
import pytest

from mixpanel_assets.properties.descriptions import MOST_CHARACTERS, MOST_COLUMNS
from mixpanel_assets.properties.publish import CatalogueOrder
from mixpanel_assets.properties.sources import EVENTS, PROFILES, Source
from mixpanel_assets.properties.store import store
from mixpanel_assets_tests.properties.rows import Connection, create, event, profile

pytestmark = pytest.mark.unit

LEXICON = (
    "create table lexicon_schemas (entity_type varchar, entity_name varchar, property varchar, description varchar)"
)


def described(connection: Connection, source: Source) -> dict[str, str]:
    """Column -> its description, as the UI has it."""
    log: Any = logging.getLogger(__name__)
    metadata = store(connection, CatalogueOrder(source), log)
    if source.view not in metadata:
        return {}
    schema: dg.TableSchema = metadata[source.view].schema
    assert {column.type for column in schema.columns} <= {"BIGINT", "VARCHAR"}
    return {column.name: column.description or "" for column in schema.columns}


def say(connection: Connection, *rows: tuple[str, str, str | None, str | None]) -> None:
    connection.executemany("insert into lexicon_schemas values (?, ?, ?, ?)", rows)


def test_columns_of_profiles_and_events(connection: Connection) -> None:
    create(connection, PROFILES)
    create(connection, EVENTS)
    profile(connection, 1, '{"$city":"x","plan":"pro","bare":1}')
    event(connection, "A", '{"plan":"pro"}')
    connection.execute(LEXICON)
    say(
        connection,
        ("profile", "$user", "$city", "  Where somebody\nlives  "),
        ("profile", "$user", "plan", ""),
        ("profile", "$user", "gone", "No profile has it"),
        ("event", "A", None, "An event"),
        ("event", "A", "plan", "What they pay"),
        ("event", "B", "plan", "What they paid"),
        ("event", "C", "plan", "What they paid"),
    )
    assert described(connection, PROFILES) == {"mp_city": "`$city`: `Where somebody lives`"}
    assert described(connection, EVENTS) == {"plan": "`plan`: `What they paid`"}


def test_it_is_text_and_bounded(connection: Connection) -> None:
    """Red when a description turns into a picture, or the event log takes all of Lexicon."""
    create(connection, PROFILES)
    profile(connection, 1, "{" + ",".join(f'"p{number:04d}":1' for number in range(MOST_COLUMNS + 50)) + "}")
    connection.execute(LEXICON)
    awkward = "![x](http://evil/`y`) <img src=x>\x00\u202e" + "z" * 5000
    say(connection, *(("profile", "$user", f"p{number:04d}", awkward) for number in range(MOST_COLUMNS + 50)))
    columns = described(connection, PROFILES)
    assert len(columns) == MOST_COLUMNS
    text = columns["p0000"]
    assert text.startswith("`p0000`: ``![x](http://evil/`y`) <img src=x>")
    assert len(text) < MOST_CHARACTERS + 100
    assert "\u202e" not in text


def test_no_lexicon_and_another_table_of_its_name(connection: Connection) -> None:
    create(connection, PROFILES)
    profile(connection, 1, '{"plan":"pro"}')
    assert described(connection, PROFILES) == {}
    connection.execute("create table lexicon_schemas (mine int)")
    assert described(connection, PROFILES) == {}
    connection.execute("drop table lexicon_schemas")
    connection.execute(
        "create table lexicon_schemas as select [1] as entity_type, 2 as entity_name, {'a': 1} as property, "
        "date '2026-01-01' as description"
    )
    assert described(connection, PROFILES) == {}
