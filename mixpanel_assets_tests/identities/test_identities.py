"""Who is who: chains, circles and late aliases, what Mixpanel proves and what it was only asked for."""

import itertools
import json
import random
from collections.abc import Iterator
from typing import Any

import duckdb
import pytest

from mixpanel_assets.errors import WarehouseError
from mixpanel_assets.identities.clusters import MOST_IDS
from mixpanel_assets.identities.publish import Identified, IdentitiesOrder, publish

pytestmark = pytest.mark.unit

BEFORE = "$distinct_id_before_identity"


class Project:
    """Stored events and profiles."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self.connection = connection
        self._asked = 0
        connection.execute(
            "create schema mixpanel; use memory.mixpanel;"
            "create table events (event_name varchar, event_time timestamp, distinct_id varchar, insert_id varchar, "
            "properties json, synced_at timestamptz, day date);"
            "create table profiles (distinct_id varchar, synced_at timestamptz)"
        )

    def event(self, who: Any, name: str = "e", day: int = 1, **properties: Any) -> None:
        """One event more, asked for later than those before."""
        self._asked += 1
        self.connection.execute(
            f"insert into events values (?, timestamp '2026-01-{day:02d} 12:00:00', ?, 'i', ?::json, "
            f"timestamptz '2026-02-01 00:00:00+00' + interval {self._asked} second, '2026-01-{day:02d}')",
            [name, who, json.dumps(properties)],
        )

    def served(self, who: str, sent_as: Any, day: int = 1) -> None:
        """An event that was sent as one id, and that Mixpanel served under another."""
        self.event(who, day=day, **{BEFORE: sent_as})

    def identify(self, user: Any, anonymous: Any) -> None:
        self.event(user, "$identify", **{"$identified_id": user, "$anon_id": anonymous})

    def alias(self, who: Any, alias: Any, day: int = 1) -> None:
        self.event(who, "$create_alias", day=day, alias=alias)

    def merge(self, ids: Any) -> None:
        self.event("x", "$merge", **{"$distinct_ids": ids})

    def profiles(self, *ids: str) -> None:
        """All that a sync found, after all events so far."""
        self.connection.execute("delete from profiles")
        self._asked += 1
        self.connection.execute(
            "insert into profiles select unnest(?::varchar[]), "
            f"timestamptz '2026-02-01 00:00:00+00' + interval {self._asked} second",
            [list(ids)],
        )

    def publish(self) -> Identified:
        return publish(self.connection, IdentitiesOrder())

    def who(self) -> dict[str, str]:
        """Each id with its canonical one, as the view has it."""
        self.publish()
        found = self.connection.execute("select distinct_id, canonical_id from identities").fetchall()
        assert len(dict(found)) == len(found), "an id is there twice"
        return dict(found)

    def proven(self) -> dict[str, bool]:
        return dict(self.connection.execute("select distinct_id, is_proven from merged_identities").fetchall())


@pytest.fixture
def project() -> Iterator[Project]:
    with duckdb.connect() as connection:
        yield Project(connection)


def test_who_was_never_merged_is_who_he_is(project: Project) -> None:
    project.event("a", plan="pro")
    project.event(None)
    assert project.who() == {"a": "a"}
    assert project.publish() == Identified(0, 0, 0)


def test_each_kind_of_link(project: Project) -> None:
    project.served("user", "$device:d")
    project.identify("u2", "anon2")
    project.alias("u3", "other3")
    project.merge(["m1", "m2", "m3"])
    project.merge('["n1", "n2"]')
    who = project.who()
    assert (who["$device:d"], who["user"], who["anon2"], who["other3"]) == ("user", "user", "u2", "u3")
    assert (who["m1"], who["m2"], who["m3"], who["n2"]) == ("m1", "m1", "m1", "n1")
    proven = project.proven()
    assert (proven["$device:d"], proven["anon2"], proven["u2"]) == (True, False, True)


def test_chains_and_circles_and_late_aliases(project: Project) -> None:
    """Red when links are followed for a number of steps only, or in one direction, or for ever."""
    for former, later in (("a", "b"), ("b", "c"), ("c", "a"), ("d", "c")):
        project.identify(later, former)
    assert len(set(project.who().values()) - {"x"}) == 1
    project.event("e", day=1)
    project.alias("b", "e", day=20)
    who = project.who()
    assert len({who[each] for each in "abcde"}) == 1, "an alias holds for what came before it"


def test_a_long_chain_in_any_order(project: Project) -> None:
    ids = [f"id{number:04d}" for number in range(400)]
    random.Random(3).shuffle(ids)
    for former, later in itertools.pairwise(ids):
        project.served(later, former)
    assert set(project.who().values()) == {ids[-1]}
    assert project.connection.execute("select distinct ids, is_proven from merged_identities").fetchall() == [
        (400, True)
    ]


class TestTheCanonicalIdIsWhatMixpanelSaidLast:
    def test_of_two_events(self, project: Project) -> None:
        """An old day still has the id of before a second merge."""
        project.served("b", "a", day=1)
        project.served("c", "a", day=2)
        assert project.who() == {"a": "c", "b": "c", "c": "c"}

    def test_an_anonymous_id_may_be_it(self, project: Project) -> None:
        project.identify("user", "anon")
        project.served("anon", "user")
        assert project.who() == {"user": "anon", "anon": "anon"}

    def test_a_profile_of_a_later_sync(self, project: Project) -> None:
        project.served("b", "a")
        project.profiles("a", "z")
        assert project.who() == {"a": "a", "b": "a"}
        project.served("b", "a")
        assert project.who()["a"] == "b", "and an event that was asked for after it"

    def test_a_request_gives_way_to_a_profile(self, project: Project) -> None:
        project.profiles("other")
        project.alias("user", "other")
        assert project.who() == {"user": "other", "other": "other"}


class TestARequestIsNoMerge:
    """Mixpanel refuses some. Red when all that is asked for counts."""

    def test_two_with_a_profile_each_are_two(self, project: Project) -> None:
        project.served("a", "anon-a")
        project.served("b", "anon-b")
        project.merge(["a", "b"])
        project.profiles("a", "b")
        assert project.publish() == Identified(merged=4, persons=2, doubtful=1)
        assert project.who() == {"a": "a", "anon-a": "a", "b": "b", "anon-b": "b"} | {"x": "x"}

    def test_a_profile_of_an_earlier_sync_says_nothing(self, project: Project) -> None:
        """One that Mixpanel has no longer stays until a sync is complete."""
        project.profiles("a")
        project.connection.execute("insert into profiles values ('b', '2020-01-01')")
        project.merge(["a", "b"])
        assert project.who()["b"] == "a"

    def test_an_id_that_all_share_joins_nobody(self, project: Project) -> None:
        """Such as `undefined`, which an application sends for whom it does not know."""
        for number in range(MOST_IDS):
            project.identify(f"user{number}", "undefined")
        project.served("user1", "device1")
        who = project.who()
        assert (who["user2"], who["device1"], who.get("undefined")) == ("user2", "user1", None)
        assert project.publish().doubtful == 1


@pytest.mark.parametrize(
    "odd",
    [None, "", {}, [], 7, True, "a", "[", '["a"]', [None, ""], {"a": 1}, "\U0001f600", "'; drop table events", 1e99],
)
def test_awkward_values_end_nothing(project: Project, odd: Any) -> None:
    project.event("a", **{BEFORE: odd})
    project.identify("a", odd)
    project.alias("a", odd)
    project.merge(odd)
    who = project.who()
    assert who["a"] in ("a", "7", "true", "[", "{}", "[]") or who["a"] in who
    assert "" not in who


def test_only_days_that_changed_are_read_again(project: Project) -> None:
    project.served("b", "a", day=1)
    project.served("d", "c", day=2)
    project.publish()
    project.connection.execute("update identity_links set former_id = 'kept' where day = '2026-01-01'")
    project.connection.execute("delete from events where day = '2026-01-02'")
    project.served("f", "e", day=2)
    assert project.who() == {"kept": "b", "b": "b", "e": "f", "f": "f"}
    project.connection.execute("delete from events where day = '2026-01-01'")
    assert project.who() == {"e": "f", "f": "f"}, "what is deleted is forgotten"


def test_without_events_or_profiles(project: Project) -> None:
    project.connection.execute("drop table profiles")
    project.served("b", "a")
    assert project.who() == {"a": "b", "b": "b"}
    project.connection.execute("drop view identities; drop table events")
    with pytest.raises(WarehouseError, match=r"there is no table mixpanel\.events yet: materialize the asset events"):
        project.publish()
