"""Typed views kept as tables: always what the view shows, and of events only changed days are written again."""

import random
from datetime import timedelta

import pytest

from mixpanel_assets.errors import WarehouseError
from mixpanel_assets.properties import typed_tables
from mixpanel_assets.properties.publish import CatalogueOrder, publish
from mixpanel_assets.properties.sources import EVENTS, PROFILES, Source
from mixpanel_assets_tests.properties.rows import NOON, Connection, create, event, profile, rows_of

pytestmark = pytest.mark.unit

VALUES = ("1", "2.5", '"text"', "true", '"2026-01-31"', "[1]", "null", "9007199254740993")


def shown(connection: Connection, source: Source) -> list[str]:
    return sorted(map(str, rows_of(connection, f"select * exclude (properties) from {source.view}")))


def kept(connection: Connection, source: Source) -> list[str]:
    return sorted(map(str, rows_of(connection, f"from {source.typed_table}")))


def tables(connection: Connection) -> set[str]:
    return {name for (name,) in connection.execute("select table_name from duckdb_tables()").fetchall()}


@pytest.mark.parametrize("seed", range(3))
def test_the_table_is_what_the_view_shows_whatever_happens_to_the_events(connection: Connection, seed: int) -> None:
    """Red when a column's new type, a new column, or a day that is gone, leaves the rows that are there as they are."""
    dice = random.Random(seed)
    create(connection, EVENTS)
    event(connection, "first", '{"a":1}')
    publish(connection, CatalogueOrder(EVENTS, typed_table=True))
    for turn in range(12):
        for _ in range(dice.randrange(4)):
            at = NOON - timedelta(days=dice.randrange(5), seconds=turn)
            event(connection, "e", f'{{"{dice.choice("abcdAB")}":{dice.choice(VALUES)},"day":{turn}}}', at)
        if dice.random() < 0.3:
            gone = NOON - timedelta(days=dice.randrange(5))
            connection.execute("delete from events where event_time::date = ?::timestamp::date", [gone])
        publish(connection, CatalogueOrder(EVENTS))
        assert kept(connection, EVENTS) == shown(connection, EVENTS)
    assert kept(connection, EVENTS)


def test_days_that_did_not_change_are_not_written_again(connection: Connection) -> None:
    """Red when the table is made anew each time; and when a new column does so."""
    create(connection, EVENTS)
    event(connection, "old", '{"a":1}', NOON - timedelta(days=1))
    event(connection, "new", '{"a":1}')
    publish(connection, CatalogueOrder(EVENTS, typed_table=True))
    connection.execute("update events_typed set a = 7")
    event(connection, "new", '{"a":2,"b":3}', NOON + timedelta(seconds=1))
    publish(connection, CatalogueOrder(EVENTS))
    rows = connection.execute("select event_name, a, b from events_typed order by a").fetchall()
    assert rows == [("new", 1, None), ("new", 2, 3), ("old", 7, None)]


def test_profiles_are_kept_whole(connection: Connection) -> None:
    create(connection, PROFILES)
    profile(connection, 1, '{"plan":"pro"}')
    publish(connection, CatalogueOrder(PROFILES, typed_table=True))
    connection.execute("delete from profiles")
    profile(connection, 2, '{"plan":5,"age":3}')
    publish(connection, CatalogueOrder(PROFILES))
    assert kept(connection, PROFILES) == shown(connection, PROFILES)
    assert [row["age"] for row in rows_of(connection, "from profiles_typed")] == [3]


def test_too_many_columns_for_the_memory_are_one_line_that_says_what_to_do(connection: Connection) -> None:
    """Red when DuckDB's own words, which speak of settings that nobody can reach, are all that is said."""
    create(connection, EVENTS)
    event(connection, "e", "{" + ",".join(f'"p{number}":"{number}"' for number in range(600)) + "}")
    publish(connection, CatalogueOrder(EVENTS, typed_table=True))
    connection.execute("insert into events select events.* from events, range(3000); set memory_limit = '60MB'")
    with pytest.raises(WarehouseError, match=r"events_typed: memory_mb is too little for 605 columns: raise it"):
        typed_tables.update(connection, EVENTS)


def test_there_is_none_unless_it_is_wanted(connection: Connection) -> None:
    """Red when it is made by itself, or stays when it is no longer wanted; wanted again, it is whole again."""
    create(connection, EVENTS)
    event(connection, "e", '{"a":1}')
    publish(connection, CatalogueOrder(EVENTS))
    assert "events_typed" not in tables(connection)
    publish(connection, CatalogueOrder(EVENTS, typed_table=True))
    publish(connection, CatalogueOrder(EVENTS, typed_table=False))
    assert "events_typed" not in tables(connection)
    publish(connection, CatalogueOrder(EVENTS, typed_table=True))
    assert len(kept(connection, EVENTS)) == 1
