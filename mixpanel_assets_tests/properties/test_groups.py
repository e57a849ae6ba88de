"""Kinds of groups: each has a catalogue and views of its own; those that an earlier version kept as profiles move."""

import pytest

from mixpanel_assets.errors import WarehouseError
from mixpanel_assets.properties.catalogue import Drift
from mixpanel_assets.properties.former_groups import take_over
from mixpanel_assets.properties.publish import Catalogued, CatalogueOrder, publish
from mixpanel_assets.properties.sources import GROUPS, PROFILES
from mixpanel_assets.storage.rejected_rows import create_rejected_rows
from mixpanel_assets_tests.properties.rows import Connection, create, group_profile, profile, rows_of

pytestmark = pytest.mark.unit

COMPANY = "-1405123841946871899"


def fill(connection: Connection) -> Catalogued:
    """An id that is a group's in each of two kinds, one of which nobody has named."""
    create(connection, GROUPS)
    group_profile(connection, COMPANY, "1", '{"seats":3,"same":"text"}', "Company 🚀's")
    group_profile(connection, "7", "1", '{"floors":2}')
    group_profile(connection, "7", "2", '{"floors":2.5}')
    return publish(connection, CatalogueOrder(GROUPS))


def test_each_kind_has_views_and_a_catalogue_of_its_own(connection: Connection) -> None:
    views = fill(connection).views
    [named] = [view for view in views if view.startswith("groups_wide_company")]
    assert set(views) == {
        *("group_7", "group_7_wide", named),
        *("group_minus_1405123841946871899", "group_minus_1405123841946871899_wide"),
    }
    assert rows_of(connection, "select group_id, floors from group_7_wide order by group_id") == [
        {"group_id": "1", "floors": 2.0},
        {"group_id": "2", "floors": 2.5},
    ]
    assert rows_of(connection, f'select group_id, seats, same from "{named}"') == [
        {"group_id": "1", "seats": 3, "same": "text"}
    ]
    assert [row["group_id"] for row in rows_of(connection, "from group_7 order by group_id")] == ["1", "2"]
    catalogue = "select group_key, name, column_type, share from group_properties order by all"
    assert [tuple(row.values()) for row in rows_of(connection, catalogue)] == [
        ("7", "floors", "DOUBLE", 1.0),
        ("Company 🚀's", "same", "VARCHAR", 1.0),
        ("Company 🚀's", "seats", "BIGINT", 1.0),
    ]


def test_views_follow_what_is_stored(connection: Connection) -> None:
    fill(connection)
    group_profile(connection, "7", "3", '{"floors":"many","lift":true}', "building")
    connection.execute("update groups set group_key = 'building' where data_group_id = '7'")
    again = publish(connection, CatalogueOrder(GROUPS))
    assert again.drift.new == ("building: lift",)
    assert again.drift.retyped == (("building: floors", "DOUBLE", "VARCHAR"),)
    last = "select floors, lift from groups_wide_building where group_id = '3'"
    assert rows_of(connection, last) == [{"floors": "many", "lift": True}]


def test_names_that_look_alike_as_columns_have_views_of_their_own(connection: Connection) -> None:
    create(connection, GROUPS)
    for number, name in enumerate(("Team", "team", "TEAM ")):
        group_profile(connection, str(number), name, "{}", name)
    publish(connection, CatalogueOrder(GROUPS))
    for view, name in (("team", "Team"), ("team_1", "team"), ("team_", "TEAM ")):
        assert [row["group_id"] for row in rows_of(connection, f"from groups_wide_{view}")] == [name]


def test_no_groups(connection: Connection) -> None:
    with pytest.raises(WarehouseError, match=r"there is no table mixpanel\.groups yet: materialize the asset groups"):
        publish(connection, CatalogueOrder(GROUPS))
    create(connection, GROUPS)
    assert publish(connection, CatalogueOrder(GROUPS)) == Catalogued(0, Drift((), (), ()), ())


class TestTakeOver:
    """A file of an earlier version, which kept groups among the profiles."""

    def test_groups_leave_the_profiles(self, connection: Connection) -> None:
        self.former(connection)
        line = take_over(connection)
        assert line == "3 groups moved from mixpanel.profiles to mixpanel.groups, which mixpanel/groups keeps"
        assert [row["distinct_id"] for row in rows_of(connection, "from profiles")] == ["1"]
        stored = (
            "select data_group_id, group_key, group_id, properties::varchar as p, synced_at is null as n from groups"
        )
        assert [tuple(row.values()) for row in rows_of(connection, f"{stored} order by all")] == [
            (COMPANY, COMPANY, "1", '{"seats":3}', False),
            ("7", "7", "1", '{"floors":2}', False),
            ("7", "7", "2", "{}", False),
        ]
        rejected = "select asset, part from rejected_rows order by part"
        assert [tuple(row.values()) for row in rows_of(connection, rejected)] == [("groups", "7"), ("profiles", None)]
        assert take_over(connection) is None

    def test_its_views_hold_what_they_held(self, connection: Connection) -> None:
        self.former(connection)
        before = rows_of(connection, "select group_id, floors from group_7_wide order by group_id")
        take_over(connection)
        assert rows_of(connection, "select group_id, floors from group_7_wide order by group_id") == before
        assert len(rows_of(connection, "from group_7")) == 2
        assert len(rows_of(connection, "from profiles_wide")) == 1, "it asks for rows without a data_group_id"

    def test_a_group_that_is_there_already_stays(self, connection: Connection) -> None:
        self.former(connection)
        take_over(connection)
        connection.execute("update groups set properties = '{\"newer\":1}', group_key = 'building'")
        connection.execute("insert into profiles by name select group_id as distinct_id, data_group_id from groups")
        assert take_over(connection) is not None
        assert rows_of(connection, "select distinct properties::varchar as p from groups") == [{"p": '{"newer":1}'}]
        assert len(rows_of(connection, "from profiles")) == 1

    def test_a_file_of_the_first_version_has_none(self, connection: Connection) -> None:
        assert take_over(connection) is None
        create(connection, PROFILES)
        profile(connection, 1, '{"plan":"pro"}')
        assert take_over(connection) is None
        assert publish(connection, CatalogueOrder(PROFILES)).views == ("profiles_wide",)

    @staticmethod
    def former(connection: Connection) -> None:
        """Tables and views as they were."""
        create(connection, PROFILES)
        connection.execute("alter table profiles add column sync_filter varchar")
        connection.execute("alter table profiles add column data_group_id varchar")
        profile(connection, 1, '{"plan":"pro"}')
        for number, group, properties in ((COMPANY, "1", '{"seats":3}'), ("7", "1", '{"floors":2}'), ("7", "2", "{}")):
            profile(connection, 0, properties)
            connection.execute(
                "update profiles set distinct_id = ?, data_group_id = ? where distinct_id = '0'", [group, number]
            )
        create_rejected_rows(connection)
        connection.execute("insert into rejected_rows (asset, part) values ('profiles', null), ('profiles', '7')")
        connection.execute(
            "create table property_columns (owner varchar, name varchar, column_name varchar, place bigint);"
            "insert into property_columns values ('group_7', 'floors', 'floors', 0);"
            "create table group_7_properties as select null::varchar as event_name, 'floors' as name, "
            "'floors' as column_name, 'BIGINT' as column_type;"
            "create view group_7_wide as select distinct_id as group_id, (properties ->> 'floors')::bigint as floors "
            "from profiles where data_group_id = '7';"
            "create view profiles_wide as select distinct_id from profiles where data_group_id is null;"
        )
