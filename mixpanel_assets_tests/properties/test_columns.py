"""Names, types and views of properties, on hostile names and values: whatever a row holds is found again."""

import json
from collections.abc import Sequence
from datetime import date, datetime, timezone
from typing import Any

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mixpanel_assets.client import json_text
from mixpanel_assets.properties import naming, wide_views
from mixpanel_assets.properties.publish import CatalogueOrder, publish
from mixpanel_assets.properties.sources import PROFILES
from mixpanel_assets.sandbox.hostile import MEMBERS
from mixpanel_assets_tests.properties.rows import (
    Connection,
    columns_of,
    create,
    profile,
    rows_of,
    text_of,
)

pytestmark = pytest.mark.unit

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
        moment = datetime.fromisoformat(meant.removesuffix("Z"))
        return bool(shown == (moment.astimezone(timezone.utc).replace(tzinfo=None) if moment.tzinfo else moment))
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
        assert len(HOSTILE_NAMES) > wide_views.COLUMNS_PER_PARSE
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
            (['"2026-01-31T10:00:00+02:00"', '"2026-01-31T10:00:00"'], "TIMESTAMP"),
            (['"2026-01-31T10:00:00.1234567+02:00"'], "VARCHAR"),
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
