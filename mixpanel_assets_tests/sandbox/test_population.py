"""Whom and what the sandbox serves, and the filters that it understands.

Every guard named in a comment "red without" was removed once, and the test seen to fail.
"""

import json
from typing import Any

import pytest

from mixpanel_assets.sandbox import Population, Sandbox
from mixpanel_assets.sandbox.expressions import BadExpression, members, predicate
from mixpanel_assets_tests.sandbox.caller import DAY, Caller

pytestmark = pytest.mark.unit


class TestPopulation:
    def test_a_seed_gives_the_same_bytes_and_another_seed_others(self) -> None:
        def content(seed: int) -> tuple[list[Any], list[Any]]:
            population = Population(profiles=30, seed=seed, events_per_day=20, hostile=True)
            return list(population.profiles()), list(population.events(DAY))

        (people, events), (others, other_events) = content(7), content(8)
        assert content(7) == (people, events)
        made_up = {who for who, _ in people if "-4" in who}
        assert len(made_up) > 20
        assert not made_up & {who for who, _ in others}
        assert not set(events) & set(other_events)

    def test_every_nth_person_may_change_at_once(self) -> None:
        """Of those who are there; a view that was taken before does not show it."""
        population = Population(profiles=10)
        before, people = population.view(), list(population.profiles())
        population.remove(people[4][0])
        population.replace_every(4, {"new": 1})
        after = dict(population.profiles())
        assert [number for number, (who, _) in enumerate(people) if after.get(who) == '{"new":1}'] == [0, 8]
        assert list(before.profiles()) == people

    def test_sizes_are_those_of_real_rows(self) -> None:
        population = Population(profiles=200, events_per_day=200)
        assert 600 < sum(len(text) for _, text in population.profiles()) / 200 < 800
        assert 400 < sum(len(text) for _, text in population.events(DAY)) / 200 < 600

    def test_hostile_rows_keep_their_text_on_the_wire(self) -> None:
        with Sandbox(Population(profiles=60, hostile=True, events_per_day=60)) as sandbox:
            body = Caller(sandbox).engage(page=0).body.decode()
            events = Caller(sandbox).export().body.decode()
            for text in (
                "9007199254740993",
                "1e400",
                ":1.10",
                "1E5",
                "\u2028",
                "\\u2028",
                "\u0085",
                "\\u0000",
                "\\ud800",
            ):
                assert text in body
                assert text in events
            for text in ('"":4', '"Name":"a","name":"b"', '"$device:', '"$distinct_id":9007199254740994', '"a.b"'):
                assert text in body
            rows = json.loads(body)["results"]
            assert [str(row["$distinct_id"]) for row in rows] == [who for who, _ in sandbox.population.profiles()]
            assert len({str(row["$distinct_id"]) for row in rows}) == 60

    def test_no_object_has_a_key_twice(self) -> None:
        population = Population(profiles=300, events_per_day=300, hostile=True, event_properties=300)
        texts = [text for _, text in population.profiles()] + [text for _, text in population.events(DAY)]
        for text in texts:
            keys = [key for key, _, _ in members(text)]
            assert len(keys) == len(set(keys))

    def test_bytes_that_are_not_utf8_can_be_served(self) -> None:
        with Sandbox(Population(profiles=0)) as sandbox:
            sandbox.population.add("raw", '{"a":"\udcff"}')
            assert b'{"a":"\xff"}' in Caller(sandbox).engage(page=0).body


class TestExpressions:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ('properties["n"] == 3', True),
            ('properties["n"] != 3 or properties["s"] == "x"', True),
            ('properties["n"] > 2 and not (properties["s"] < "a")', True),
            ('properties["s"] > 2', False),
            ('properties["gone"] == "x"', False),
            ('properties["gone"] == null and properties["b"] == true', True),
            ('properties["q\\"uote"] == 1.5', True),
            ('(defined (properties["n"])) and not defined(properties["gone"])', True),
            ('(boolean(properties["b"]) == true)', True),
            ('"x" in properties["s"] or "y" in properties["n"]', True),
            ('"y" in properties["n"]', False),
            ('(behaviors["often"] > 2) and behaviors["often"] < 4', True),
        ],
    )
    def test_it_holds(self, text: str, *, expected: bool) -> None:
        assert predicate(text, ["often"])({"n": 3, "s": "x", "b": True, 'q"uote': 1.5}, {"often": 3}) is expected

    @pytest.mark.parametrize(
        "text",
        [
            *("", "properties", 'properties["a"]', "1 == ", "1 == 1 1", "(1 == 1", "a == 1", 'behaviors["x"] > 0'),
            *("defined", "defined(", 'defined(properties["a"]', 'defined(properties["a"]) 1'),
        ],
    )
    def test_it_is_refused(self, text: str) -> None:
        with pytest.raises(BadExpression):
            predicate(text)
