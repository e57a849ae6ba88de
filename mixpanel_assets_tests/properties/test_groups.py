"""Groups beside users: neither shows in what is said of the other."""

import pytest

from mixpanel_assets.properties.publish import CatalogueOrder, publish
from mixpanel_assets.properties.sources import PROFILES
from mixpanel_assets_tests.properties.rows import Connection, create, group_profile, profile, rows_of

pytestmark = pytest.mark.unit


def fill(connection: Connection) -> None:
    """One user, and an id that is also that of a profile in each of two groups."""
    create(connection, PROFILES)
    profile(connection, 1, '{"plan":"pro","same":1}')
    group_profile(connection, "-1405123841946871899", "1", '{"seats":3,"same":"text"}')
    group_profile(connection, "7", "1", '{"floors":2}')
    group_profile(connection, "7", "2", '{"floors":2.5}')


def test_users_are_by_themselves(connection: Connection) -> None:
    # Red when the catalogue or the view reads the whole table.
    fill(connection)
    publish(connection, CatalogueOrder(PROFILES))
    [user] = rows_of(connection, "select * exclude (synced_at, last_seen) from profiles_wide")
    assert user == {"distinct_id": "1", "plan": "pro", "same": 1, "properties": '{"plan":"pro","same":1}'}
    rows = rows_of(connection, "select name, share, column_type from profile_properties order by name")
    assert [tuple(row.values()) for row in rows] == [("plan", 1.0, "VARCHAR"), ("same", 1.0, "BIGINT")]


def test_each_group_has_views_and_a_catalogue_of_its_own(connection: Connection) -> None:
    fill(connection)
    views = publish(connection, CatalogueOrder(PROFILES)).views
    assert {"group_7", "group_7_wide", "group_minus_1405123841946871899_wide"} < set(views)
    assert rows_of(connection, "select group_id, floors from group_7_wide order by group_id") == [
        {"group_id": "1", "floors": 2.0},
        {"group_id": "2", "floors": 2.5},
    ]
    assert rows_of(connection, "select group_id, seats, same from group_minus_1405123841946871899_wide") == [
        {"group_id": "1", "seats": 3, "same": "text"}
    ]
    assert [row["group_id"] for row in rows_of(connection, "from group_7 order by group_id")] == ["1", "2"]
    assert [row["name"] for row in rows_of(connection, "from group_7_properties")] == ["floors"]


def test_views_follow_what_is_stored(connection: Connection) -> None:
    fill(connection)
    publish(connection, CatalogueOrder(PROFILES))
    group_profile(connection, "7", "3", '{"floors":"many","lift":true}')
    connection.execute("delete from profiles where data_group_id is null")
    publish(connection, CatalogueOrder(PROFILES))
    last = "select floors, lift from group_7_wide where group_id = '3'"
    assert rows_of(connection, last) == [{"floors": "many", "lift": True}]
    assert rows_of(connection, "from profiles_wide") == []


def test_a_table_from_before_groups(connection: Connection) -> None:
    create(connection, PROFILES)
    profile(connection, 1, '{"plan":"pro"}')
    assert publish(connection, CatalogueOrder(PROFILES)).views == ("profiles_wide",)
    assert len(rows_of(connection, "from profiles_wide")) == 1
