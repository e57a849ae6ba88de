"""What each profile was: periods that fit together, of whatever syncs come in whatever order."""

import datetime
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest

from mixpanel_assets.streams.profiles.query import ProfileQuery
from mixpanel_assets.streams.snapshot.history import Noted
from mixpanel_assets.streams.snapshot.load import publish
from mixpanel_assets_tests.staged import NOON, page, staged

pytestmark = pytest.mark.unit


class Synced:
    """A database that profiles are synced into, a minute apart."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._numbers = folder, itertools.count(1)
        self.connection = duckdb.connect()
        self.connection.execute("create schema mixpanel; use memory.mixpanel")

    def sync(self, profiles: dict[str, str | None], *, minute: int = 0, keep: bool = True, **how: Any) -> Noted | None:
        number = next(self._numbers)
        began = NOON + datetime.timedelta(minutes=minute or number)
        pages = staged(self._folder, str(number), [page(0, profiles)], began=began, **how)
        return publish(self.connection, replace(pages, keep_history=keep)).history

    def rows(self) -> list[tuple[Any, ...]]:
        """Key, properties, minutes from and to, how it began, names, how it ended."""
        found = self.connection.execute(
            "select distinct_id, properties::varchar, date_diff('minute', $noon, valid_from), "
            "date_diff('minute', $noon, valid_to), change, changed_properties, ended_by "
            "from profile_history order by 1, 3",
            {"noon": NOON},
        ).fetchall()
        assert self.open() == self.stored(), "what has not ended is what is stored"
        return found

    def open(self) -> list[Any]:
        return self._all("select distinct_id, properties::varchar from profile_history where valid_to is null")

    def stored(self) -> list[Any]:
        return self._all("select distinct_id, properties::varchar from profiles")

    def _all(self, query: str) -> list[Any]:
        return self.connection.execute(f"{query} order by all").fetchall()


@pytest.fixture
def synced(tmp_path: Path) -> Synced:
    return Synced(tmp_path)


def test_nothing_is_kept_that_nobody_asked_for(synced: Synced) -> None:
    assert synced.sync({"a": "{}"}, keep=False) is None
    assert not synced.connection.execute("from duckdb_tables() where table_name = 'profile_history'").fetchall()


def test_periods_of_profiles(synced: Synced) -> None:
    """It begins with what is known, and goes on in syncs that do not ask for it."""
    assert synced.sync({"a": '{"n":1}', "b": '{"n":1}', "c": None}) == Noted(3, 3, 0)
    assert synced.sync({"a": '{"n":2,"m":1}', "b": '{"n":1}', "c": None, "d": "{}"}, keep=False) == Noted(5, 2, 0)
    assert synced.sync({"a": '{"n":2}', "b": '{"n":1}', "d": "{}"}) == Noted(6, 1, 1)
    assert synced.sync({"a": '{"n":2}', "b": '{"n":1}', "c": None, "d": "{}"}) == Noted(7, 1, 0)
    assert synced.rows() == [
        ("a", '{"n":1}', 1, 2, "known", None, "changed"),
        ("a", '{"n":2,"m":1}', 2, 3, "changed", ["m", "n"], "changed"),
        ("a", '{"n":2}', 3, None, "changed", ["m"], None),
        ("b", '{"n":1}', 1, None, "known", None, None),
        ("c", None, 1, 3, "known", None, "removed"),
        ("c", None, 4, None, "new", None, None),
        ("d", "{}", 2, None, "new", None, None),
    ]


def test_what_was_stored_before_is_known_since_then(synced: Synced) -> None:
    synced.sync({"a": "{}", "b": "{}"}, keep=False)
    synced.sync({"b": "{}"}, complete=False)
    assert [row[:5] for row in synced.rows()] == [("a", "{}", 1, None, "known"), ("b", "{}", 2, None, "known")]


def test_a_part_ends_no_period_of_whom_it_lacks(synced: Synced) -> None:
    """Red when whoever did not come is taken for gone."""
    synced.sync({"a": "{}", "b": "{}"})
    assert synced.sync({"b": '{"n":1}'}, complete=False) == Noted(3, 1, 0)
    assert [row[0] for row in synced.rows() if row[3] is None] == ["a", "b"]
    assert synced.sync({"b": '{"n":1}'}, total=2) == Noted(3, 0, 0), "nor one that is a row short"


def test_an_order_of_properties_is_no_change(synced: Synced) -> None:
    synced.sync({"a": '{"x":1,"y":{"z":[1]}}'})
    assert synced.sync({"a": '{"y":{"z":[1]}, "x":1}'}, most=1.0) == Noted(1, 0, 0)
    assert synced.sync({"a": '{"y":{"z":[2]}, "x":1}'}) == Noted(2, 1, 0)


def test_awkward_names_and_values(synced: Synced) -> None:
    names = ["", "~", "/", "a/b~c", '"', "'", "\\", "\n", "\U0001f600", "$x", "name", "[0]", "*"]
    before = duckdb.execute("select to_json(map_from_entries([(n, 1) for n in ?]))::varchar", [names]).fetchall()[0][0]
    after = before.replace(":1", ":1.0")
    synced.sync({"a": before, "b": '{"n":9007199254740993}', "'; drop table profiles": "{}"})
    synced.sync({"a": after, "b": '{"n":9007199254740992}', "'; drop table profiles": "{}"})
    changed = {row[0]: row[5] for row in synced.rows() if row[4] == "changed"}
    assert changed == {"a": sorted(names), "b": ["n"]}


def test_a_sync_of_some_properties_says_nothing_of_changes(synced: Synced) -> None:
    """Red when all others are taken for gone."""
    synced.sync({"a": '{"n":1,"m":1}'})
    assert synced.sync({"a": '{"n":1}', "b": "{}"}, query=ProfileQuery(output_properties=("n",))) is None
    assert synced.sync({"a": '{"n":2,"m":1}', "b": "{}"}) == Noted(3, 2, 0)
    assert [row[4:6] for row in synced.rows()] == [("known", None), ("changed", ["n"]), ("new", None)]


def test_a_filter_ends_what_it_removes(synced: Synced) -> None:
    pro = ProfileQuery(where="pro")
    synced.sync({"a": "{}"})
    synced.sync({"a": "{}", "b": "{}"}, query=pro)
    synced.sync({"a": "{}"}, query=pro)
    assert [(row[0], row[6]) for row in synced.rows()] == [("a", None), ("b", "removed")]


def test_a_sync_that_began_earlier_and_comes_last(synced: Synced) -> None:
    """Its rows that are older than those stored change nothing."""
    synced.sync({"a": '{"n":1}', "b": "{}"}, minute=1)
    synced.sync({"a": '{"n":3}'}, minute=3, complete=False)
    synced.sync({"a": '{"n":2}', "b": '{"n":2}', "c": "{}"}, minute=2)
    assert [row[:4] for row in synced.rows()] == [
        ("a", '{"n":1}', 1, 3),
        ("a", '{"n":3}', 3, None),
        ("b", "{}", 1, 2),
        ("b", '{"n":2}', 2, None),
        ("c", "{}", 2, None),
    ]


def test_the_same_sync_twice_is_one(synced: Synced) -> None:
    """A retry of its failed pages is of its beginning."""
    synced.sync({"a": "{}"}, minute=1)
    synced.sync({"a": '{"n":1}'}, minute=2, complete=False)
    assert synced.sync({"a": '{"n":1}', "b": "{}"}, minute=2) == Noted(3, 1, 0)
    assert [row[:4] for row in synced.rows()] == [("a", "{}", 1, 2), ("a", '{"n":1}', 2, None), ("b", "{}", 2, None)]
