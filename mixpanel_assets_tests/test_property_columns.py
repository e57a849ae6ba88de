"""Names, types and views of properties, on hostile names and values: whatever a row holds is found again."""

import json
from collections.abc import Iterator, Sequence
from datetime import date, datetime, timedelta, timezone
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mixpanel_assets.errors import ConfigurationError, WarehouseError
from mixpanel_assets.mixpanel import json_text
from mixpanel_assets.properties import catalogue, naming, wide_views
from mixpanel_assets.properties.catalogue import Drift
from mixpanel_assets.properties.publish import CatalogueOrder, publish
from mixpanel_assets.properties.sources import EVENTS, PROFILES, Source
from mixpanel_assets.sandbox.hostile import MEMBERS

NOON = datetime.fromisoformat("2026-01-31T12:00:00")
HOSTILE_NAMES = [
    "", " ", "a", "A", "$a", "$A", "a_1", "a b", "a.b", "a/b", "a~b", "a~1b", 'a"b', "a'b", "a\\b", "a\nb", "\x00",
    "\x01", "$", "$$", "*", "#", "0", "1st", "select", "SELECT", "$select", "distinct_id", "properties", "synced_at",
    "event_name", "\U0001f600", "\u00e9", "e\u0301", "\u00df", "\u0130", "Part 0", "x" * 255, "X" * 255, "\u2028", "_",
    "__1", "'; drop table profiles; --", "$.a", "/a", "[0]", "?", "$1", "null", "True", "res_select", "mp_a",
]  # fmt: skip
HOSTILE_VALUES = [
    "0", "-0.0", "1.10", "1e5", "1e400", "-1e400", "1e-400", "0.1000000000000000055511151231257827", "9007199254740992",
    "9007199254740993", "-9007199254740993", "9223372036854775807", "9223372036854775808", "-9223372036854775809",
    "170141183460469231731687303715884105727", "170141183460469231731687303715884105728", "true", "false", "null", '""',
    '"NaN"', '"Infinity"', '"1"', '"true"', '"null"', '"2026-01-31"', '"2026-02-31"', '"2026-01-31T23:59:59"',
    '"2026-01-31 23:59:59.123456Z"', '"2026-01-31T23:59:59.1234567"', '"2026-01-31T23:59:59+02:00"', '"24-1-1"',
    '"2026-01-31T24:00:00"', '"12345-01-01"', '"a\\u0000b"', '"\\ud83d\\ude00"', '"\'"', "[]", "{}", '[1,"1",null]',
    '{"a":{"a":[9007199254740993,1.10]}}', '{"":1}', '{"a":1,"A":2}', "[" * 60 + "]" * 60,
]  # fmt: skip
NAMES = st.sampled_from(HOSTILE_NAMES) | st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
ROWS = st.lists(st.dictionaries(NAMES, st.sampled_from(HOSTILE_VALUES), max_size=6), min_size=1, max_size=6)

Connection = duckdb.DuckDBPyConnection


@pytest.fixture
def connection() -> Iterator[Connection]:
    with duckdb.connect() as connection:
        connection.execute("create schema mixpanel; use memory.mixpanel")
        yield connection


def create(connection: Connection, source: Source) -> None:
    own = "event_name varchar, event_time timestamp, distinct_id varchar, insert_id varchar"
    own = own if source.by_event else "distinct_id varchar, last_seen timestamp"
    connection.execute(f"create or replace table {source.table} ({own}, properties json, synced_at timestamptz)")


def profile(connection: Connection, number: int, properties: str, at: datetime = NOON) -> None:
    connection.execute("insert into profiles values (?, null, ?::json, ?)", [str(number), properties, utc(at)])


def event(connection: Connection, name: str, properties: str, at: datetime = NOON) -> None:
    connection.execute("insert into events values (?, ?, 'u', 'i', ?::json, ?)", [name, at, properties, utc(at)])


def utc(moment: datetime) -> datetime:
    return moment.replace(tzinfo=timezone.utc)


def text_of(members: dict[str, str]) -> str:
    return "{" + ", ".join(f"{json.dumps(name)}: {value}" for name, value in members.items()) + "}"


def columns_of(connection: Connection, source: Source) -> dict[str, tuple[str, str]]:
    """Property -> its column and type, over all rows."""
    rows = connection.execute(
        f"select name, column_name, column_type from {source.catalogue} where event_name is null"
    ).fetchall()
    return {name: (column, type_) for name, column, type_ in rows}


def rows_of(connection: Connection, query: str) -> list[dict[str, Any]]:
    result = connection.execute(query)
    names = [column[0] for column in result.description or ()]
    return [dict(zip(names, row, strict=True)) for row in result.fetchall()]


def is_found(value: str, shown: Any, type_: str) -> bool:
    """Whether the JSON text of a value and what a column of the type shows are the same value."""
    meant = json.loads(value)
    if meant is None:
        return shown is None
    if type_ in ("BIGINT", "HUGEINT", "BOOLEAN"):
        return type(shown) is type(meant) and bool(shown == meant)
    if type_ == "DOUBLE":
        return bool(shown == float(value))
    if type_ == "DATE":
        return bool(shown == date.fromisoformat(meant))
    if type_ == "TIMESTAMP":
        return bool(shown == datetime.fromisoformat(meant.removesuffix("Z")))
    if type_ == "JSON" or isinstance(meant, (dict, list)):
        return bool(json.loads(shown) == meant)
    if isinstance(meant, bool):
        return bool(shown == value)
    if isinstance(meant, int):
        return bool(int(shown) == meant)
    # What overflows a double is the very text; Python would read infinity.
    return bool(shown == value or float(shown) == meant) if isinstance(meant, float) else bool(shown == meant)


class TestNames:
    @pytest.mark.parametrize(
        ("name", "column"),
        [
            ("$userName", "mp_username"),
            ("Plan Type", "plan_type"),
            ("a.b/c", "a_b_c"),
            ("select", "res_select"),
            ("$select", "mp_select"),
            ("", "_"),
            ("2fa", "_2fa"),
            ("e\u0301t\u00e9", "\u00e9t\u00e9"),
            ("\U0001f600", "_"),
            ("x" * 255, "x" * 128),
        ],
    )
    def test_mixpanels_rules(self, name: str, column: str) -> None:
        assert naming.plain(name) == column

    @given(st.lists(NAMES, max_size=30), st.sets(st.sampled_from(["distinct_id", "_", "a", "a_1", "_1"])))
    def test_no_two_properties_share_a_column(self, names: list[str], taken: set[str]) -> None:
        # Red when `used` is not told of each name given.
        columns = naming.columns_for(names, taken)
        assert set(columns) == set(names)
        given_out = list(columns.values())
        assert len({column.lower() for column in given_out} | taken) == len(given_out) + len(taken)
        assert all(0 < len(column) <= naming.MOST_CHARACTERS for column in given_out)

    def test_long_names_that_collide_stay_short_enough(self) -> None:
        assert naming.columns_for(["x" * 255, "X" * 255], ()) == {"x" * 255: "x" * 128, "X" * 255: "x" * 126 + "_1"}

    def test_columns_need_no_quotes(self) -> None:
        # Red without RESERVED, and without the rule for leading digits.
        with duckdb.connect() as connection:
            query = "select keyword_name from duckdb_keywords() where keyword_category in ('reserved', 'type_function')"
            words = [word for (word,) in connection.execute(query).fetchall()]
            for column in naming.columns_for([*HOSTILE_NAMES, *words], ()).values():
                # After `as` DuckDB would take any word.
                connection.execute(f'select {column} from (select 1 as "{column}")')


class TestFoundAgain:
    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(ROWS)
    def test_every_value_is_in_its_column(self, connection: Connection, rows: list[dict[str, str]]) -> None:
        # Red when `$."name"` paths are used, `'` is not doubled, a kind is missing from _KIND, or _TYPES lets
        # big integers be doubles.
        create(connection, PROFILES)
        connection.execute("drop table if exists profile_properties; drop table if exists property_columns")
        for number, members in enumerate(rows):
            profile(connection, number, text_of(members))
        publish(connection, CatalogueOrder(PROFILES))
        self.check(connection, rows)

    def test_the_hostile_names_all_at_once(self, connection: Connection) -> None:
        create(connection, PROFILES)
        rows = [
            {name: HOSTILE_VALUES[(i + shift) % len(HOSTILE_VALUES)] for i, name in enumerate(HOSTILE_NAMES)}
            for shift in range(len(HOSTILE_VALUES))
        ]
        for number, members in enumerate(rows):
            profile(connection, number, text_of(members))
        publish(connection, CatalogueOrder(PROFILES))
        # More than one parse takes: red when a group's places are counted on into the next.
        assert len(HOSTILE_NAMES) > wide_views.PATHS_PER_PARSE
        self.check(connection, rows)

    def test_the_sandboxs_hostile_members(self, connection: Connection) -> None:
        create(connection, PROFILES)
        texts = [json_text.repaired(("{" + members + "}").encode())[0].decode() for members in MEMBERS]
        for number, text in enumerate(texts):
            profile(connection, number, text)
        publish(connection, CatalogueOrder(PROFILES))
        members = [
            {name: bytes(value).decode() for name, value in json_text.read_object(t.encode()).items()} for t in texts
        ]
        self.check(connection, members)

    @staticmethod
    def check(connection: Connection, rows: Sequence[dict[str, str]]) -> None:
        columns = columns_of(connection, PROFILES)
        assert set(columns) == {name for members in rows for name in members}
        shown = {row["distinct_id"]: row for row in rows_of(connection, "from profiles_wide")}
        assert len(shown) == len(rows)
        for number, members in enumerate(rows):
            row = shown[str(number)]
            for name, (column, type_) in columns.items():
                if name in members:
                    assert is_found(members[name], row[column], type_), (name, members[name], row[column], type_)
                else:
                    assert row[column] is None


class TestTypes:
    @pytest.mark.parametrize(
        ("values", "type_"),
        [
            (["1", "2"], "BIGINT"),
            (["1", "null"], "BIGINT"),
            (["9007199254740993", "-1"], "BIGINT"),
            (["18446744073709551615", "-1"], "HUGEINT"),
            (["170141183460469231731687303715884105728"], "VARCHAR"),
            (["1", "1.5"], "DOUBLE"),
            (["9007199254740993", "1.5"], "VARCHAR"),
            (["1e400"], "VARCHAR"),
            (["true", "false"], "BOOLEAN"),
            (["true", "1"], "VARCHAR"),
            (["1", '"1"'], "VARCHAR"),
            (['"2026-01-31"', '"2026-01-30"'], "DATE"),
            (['"2026-01-31"', '"2026-01-31T10:00:00"'], "TIMESTAMP"),
            (['"2026-01-31"', '"soon"'], "VARCHAR"),
            (['"2026-01-31T10:00:00+02:00"'], "VARCHAR"),
            (["[]", "{}"], "JSON"),
            (["[]", '"a"'], "VARCHAR"),
            (["null"], "VARCHAR"),
        ],
    )
    def test_a_type_fits_all_values(self, connection: Connection, values: list[str], type_: str) -> None:
        create(connection, PROFILES)
        for number, value in enumerate(values):
            profile(connection, number, f'{{"p":{value}}}')
        publish(connection, CatalogueOrder(PROFILES))
        assert columns_of(connection, PROFILES) == {"p": ("p", type_)}
        assert rows_of(connection, "describe profiles_wide")[3]["column_type"] == type_

    def test_a_value_that_came_after_the_catalogue_fails_no_query(self, connection: Connection) -> None:
        # Red with `cast` for `try_cast`.
        create(connection, PROFILES)
        members = {
            "i": "1",
            "h": "9" * 20,
            "d": "1.5",
            "b": "true",
            "j": "[1]",
            "t": '"2026-01-31T10:00:00"',
            "v": '"x"',
        }
        profile(connection, 0, text_of(members))
        publish(connection, CatalogueOrder(PROFILES))
        for number, value in enumerate(HOSTILE_VALUES, start=1):
            profile(connection, number, text_of(dict.fromkeys(members, value)))
        assert len(rows_of(connection, "from profiles_wide")) == len(HOSTILE_VALUES) + 1

    def test_nested_values_as_struct_by_choice_and_from_then_on(self, connection: Connection) -> None:
        create(connection, PROFILES)
        profile(connection, 0, '{"o":{"a":1,"b":["x"]},"bad":{"":1},"cases":{"a":1,"A":2},"l":[{"c":true}],"plain":1}')
        publish(connection, CatalogueOrder(PROFILES, unfold_nested=True))
        publish(connection, CatalogueOrder(PROFILES))
        types = {row["column_name"]: row["column_type"] for row in rows_of(connection, "describe profiles_wide")}
        assert types["o"] == "STRUCT(a UBIGINT, b VARCHAR[])"
        assert types["l"] == "STRUCT(c BOOLEAN)[]"
        # Red without `_is_type`: DuckDB refuses the view.
        assert types["bad"] == "JSON"
        [row] = rows_of(connection, "from profiles_wide")
        assert row["o"] == {"a": 1, "b": ["x"]}
        assert json.loads(row["bad"]) == {"": 1}
        publish(connection, CatalogueOrder(PROFILES, unfold_nested=False))
        assert json.loads(rows_of(connection, "from profiles_wide")[0]["o"]) == {"a": 1, "b": ["x"]}


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
        with pytest.raises(WarehouseError, match="materialize mixpanel/profiles first"):
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
