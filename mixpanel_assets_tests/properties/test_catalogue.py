"""The catalogue of properties: what it says, what moved since the last one, and what it costs to renew."""

import json
from datetime import timedelta

import pytest

from mixpanel_assets.errors import ConfigurationError, WarehouseError
from mixpanel_assets.properties import catalogue
from mixpanel_assets.properties.catalogue import Drift
from mixpanel_assets.properties.publish import CatalogueOrder, publish
from mixpanel_assets.properties.sources import EVENTS, PROFILES
from mixpanel_assets_tests.properties.rows import (
    NOON,
    Connection,
    columns_of,
    create,
    event,
    profile,
    rows_of,
    utc,
)

pytestmark = pytest.mark.unit


class TestCatalogue:
    def test_what_a_row_says(self, connection: Connection) -> None:
        create(connection, PROFILES)
        for number in range(10):
            profile(connection, number, f'{{"n":{number % 3},"mixed":{number if number % 5 else json.dumps("x")}}}')
        profile(connection, 10, '{"rare":null}')
        publish(connection, CatalogueOrder(PROFILES))
        [row] = rows_of(connection, "from profile_properties where name = 'mixed'")
        assert row["types"] == {"integer": 0.8, "text": 0.2}
        assert (row["rows"], row["share"], row["distinct_values"]) == (10, pytest.approx(10 / 11), 9)
        assert row["examples"] == ["1", "9", "x"]
        assert row["first_seen"] == row["last_seen"] == NOON
        [rare] = rows_of(connection, "from profile_properties where name = 'rare'")
        assert (rare["rows"], rare["distinct_values"], rare["types"]) == (1, 0, {"null": 1.0})

    @pytest.mark.parametrize("values", [3, 100, 1_000, 30_000])
    def test_different_values_are_about_right_however_often_they_come(
        self, connection: Connection, values: int
    ) -> None:
        # Red when the levels are not scaled, or sketches of different days are added instead of joined.
        create(connection, EVENTS)
        connection.execute(
            f"insert into events select 'e', timestamp '2026-01-31' - interval (i % 3) day, 'u', 'i', "
            f"('{{\"p\":\"' || (i % {values}) || '\"}}')::json, now() from range({values * 4}) t(i)"
        )
        publish(connection, CatalogueOrder(EVENTS))
        [row] = rows_of(connection, "from event_properties where event_name is null")
        assert row["distinct_values"] == pytest.approx(values, rel=0.25)

    def test_a_name_never_moves(self, connection: Connection) -> None:
        # Red when names are given anew with each update: `$A` sorts before `a`.
        create(connection, PROFILES)
        profile(connection, 0, '{"a":1}')
        publish(connection, CatalogueOrder(PROFILES))
        connection.execute("delete from profiles")
        profile(connection, 1, '{"A":1,"$a":2}')
        publish(connection, CatalogueOrder(PROFILES))
        columns = {name: column for name, (column, _) in columns_of(connection, PROFILES).items()}
        assert columns == {"a": "a", "A": "a_1", "$a": "mp_a"}
        profile(connection, 2, '{"a":5}')
        publish(connection, CatalogueOrder(PROFILES))
        given_out = connection.execute("select name, column_name from property_columns").fetchall()
        assert sorted(given_out) == [("$a", "mp_a"), ("A", "a_1"), ("a", "a")]
        assert [row["a"] for row in rows_of(connection, "from profiles_wide order by distinct_id")] == [None, 5]

    def test_one_that_goes_away_keeps_its_column_and_type(self, connection: Connection) -> None:
        create(connection, PROFILES)
        profile(connection, 0, '{"gone":1,"stays":1}')
        publish(connection, CatalogueOrder(PROFILES))
        connection.execute("""update profiles set properties = '{"stays":1}'""")
        publish(connection, CatalogueOrder(PROFILES))
        # Red without the second half of the catalogue's union.
        assert columns_of(connection, PROFILES)["gone"] == ("gone", "BIGINT")
        [row] = rows_of(connection, "from profiles_wide")
        assert (row["gone"], row["stays"]) == (None, 1)

    def test_one_that_becomes_null_keeps_its_type(self, connection: Connection) -> None:
        create(connection, PROFILES)
        profile(connection, 0, '{"n":1}')
        publish(connection, CatalogueOrder(PROFILES))
        connection.execute("""update profiles set properties = '{"n":null}'""")
        assert publish(connection, CatalogueOrder(PROFILES)).drift == Drift((), (), ())
        # Red when the type before does not count.
        assert columns_of(connection, PROFILES)["n"] == ("n", "BIGINT")

    def test_without_a_sync_it_says_so(self, connection: Connection) -> None:
        with pytest.raises(WarehouseError, match="materialize the asset profiles first"):
            catalogue.update(connection, PROFILES)

    def test_an_empty_table_is_no_error(self, connection: Connection) -> None:
        for source in (PROFILES, EVENTS):
            create(connection, source)
            assert publish(connection, CatalogueOrder(source)).rows == 0
            assert rows_of(connection, f"from {source.view}") == []


class TestDrift:
    def test_of_profiles(self, connection: Connection) -> None:
        create(connection, PROFILES)
        profile(connection, 0, '{"same":1,"gone":1,"typed":1}')
        assert publish(connection, CatalogueOrder(PROFILES)).drift == Drift((), (), ())
        connection.execute("delete from profiles")
        profile(connection, 0, '{"same":2,"new":1,"typed":"x"}')
        drift = publish(connection, CatalogueOrder(PROFILES)).drift
        assert drift == Drift(("new",), ("gone",), (("typed", "BIGINT", "VARCHAR"),))
        assert publish(connection, CatalogueOrder(PROFILES)).drift == Drift((), (), ())

    def test_events_drop_a_property_when_it_has_not_come_for_a_week(self, connection: Connection) -> None:
        create(connection, EVENTS)
        event(connection, "e", '{"old":1,"same":1}')
        publish(connection, CatalogueOrder(EVENTS))
        event(connection, "e", '{"same":1}', NOON + timedelta(days=catalogue.CURRENT_DAYS - 1))
        assert publish(connection, CatalogueOrder(EVENTS)).drift == Drift((), (), ())
        event(connection, "e", '{"same":1}', NOON + timedelta(days=catalogue.CURRENT_DAYS))
        # Red when `is_current` looks at all days.
        assert publish(connection, CatalogueOrder(EVENTS)).drift == Drift((), ("old",), ())
        event(connection, "e", '{"old":1}', NOON + timedelta(days=catalogue.CURRENT_DAYS))
        assert publish(connection, CatalogueOrder(EVENTS)).drift == Drift(("old",), (), ())


class TestEvents:
    def test_only_days_that_changed_are_counted_again(self, connection: Connection) -> None:
        create(connection, EVENTS)
        days = [NOON, NOON + timedelta(days=1), NOON + timedelta(days=2)]
        for day in days:
            event(connection, "e", '{"p":1}', day)
        publish(connection, CatalogueOrder(EVENTS))
        # Behind the catalogue's back: properties change, and nothing that tells of a load.
        connection.execute("""update events set properties = '{"p":"x"}' where event_time = ?""", [days[0]])
        publish(connection, CatalogueOrder(EVENTS))
        assert columns_of(connection, EVENTS)["p"][1] == "BIGINT"
        # A load changes synced_at; red when `same` does not compare it.
        connection.execute(
            "update events set synced_at = ? where event_time = ?", [utc(NOON + timedelta(days=9)), days[0]]
        )
        publish(connection, CatalogueOrder(EVENTS))
        assert columns_of(connection, EVENTS)["p"][1] == "VARCHAR"
        # Red when days that are gone stay counted.
        connection.execute("delete from events where event_time = ?", [days[0]])
        publish(connection, CatalogueOrder(EVENTS))
        [row] = rows_of(connection, "from event_properties where event_name is null")
        assert (row["column_type"], row["rows"], row["first_seen"]) == ("BIGINT", 2, days[1])

    def test_counts_of_a_table_of_before_go_on(self, connection: Connection) -> None:
        """Red when what was counted is not read as BIT from both: there it lies as BIT, now as bytes."""
        create(connection, EVENTS)
        for number in range(20):
            event(connection, "buy", f'{{"p":{number}}}', NOON - timedelta(days=number % 2))
        publish(connection, CatalogueOrder(EVENTS))
        now = rows_of(connection, "select name, distinct_values from event_properties order by all")
        connection.execute("alter table event_property_days alter sketch type bit using sketch::bit")
        connection.execute(f"delete from event_property_counted_days where day = '{NOON:%Y-%m-%d}'")
        publish(connection, CatalogueOrder(EVENTS))
        assert rows_of(connection, "select name, distinct_values from event_properties order by all") == now
        assert max(row["distinct_values"] for row in now) == pytest.approx(20, abs=2)

    def test_counts_by_another_duckdb_are_not_trusted(self, connection: Connection) -> None:
        create(connection, EVENTS)
        event(connection, "e", '{"p":1}')
        publish(connection, CatalogueOrder(EVENTS))
        connection.execute("""update events set properties = '{"p":"x"}'""")
        connection.execute("update event_property_counted_days set counted_by = '1.0.0/1'")
        publish(connection, CatalogueOrder(EVENTS))
        assert columns_of(connection, EVENTS)["p"][1] == "VARCHAR"

    def test_each_event_has_its_shares_and_on_request_its_view_from_then_on(self, connection: Connection) -> None:
        create(connection, EVENTS)
        event(connection, "Signed Up", '{"v":1}')
        event(connection, "signed up", '{"v":"x","w":true}')
        event(connection, "Other", "{}")
        publish(connection, CatalogueOrder(EVENTS))
        rows = connection.execute(
            "select event_name, column_type, share from event_properties where name = 'v'"
        ).fetchall()
        shares = {name: (type_, round(share, 3)) for name, type_, share in rows}
        assert shares == {None: ("VARCHAR", 0.667), "Signed Up": ("BIGINT", 1.0), "signed up": ("VARCHAR", 1.0)}
        named = publish(connection, CatalogueOrder(EVENTS, event_views=("Signed Up", "signed up", "Other")))
        views = ("events_wide", "events_wide_signed_up", "events_wide_signed_up_1", "events_wide_other")
        assert named.views == views
        [row] = rows_of(connection, "from events_wide_signed_up")
        assert (row["event_name"], row["v"]) == ("Signed Up", 1)
        assert "w" not in row
        # A new property appears by itself.
        event(connection, "Signed Up", '{"new":1}')
        assert publish(connection, CatalogueOrder(EVENTS)).views == views
        assert sorted(row["new"] or 0 for row in rows_of(connection, "from events_wide_signed_up")) == [0, 1]

    def test_a_view_of_an_event_that_is_not_there_is_refused(self, connection: Connection) -> None:
        create(connection, EVENTS)
        with pytest.raises(ConfigurationError, match="there is no event 'x'"):
            publish(connection, CatalogueOrder(EVENTS, event_views=("x",)))
