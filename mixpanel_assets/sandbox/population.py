"""The truth: who is in the project and what they did, as text exactly as the sandbox serves it.

Belongs here: the seeded people and events plus the changes made since (added, replaced and removed profiles, late
events), and frozen views of them. Not here: pages, sessions, filters' grammar, HTTP.
"""

import json
import threading
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from types import MappingProxyType
from typing import Any

from mixpanel_assets.sandbox.events import Event, EventGenerator
from mixpanel_assets.sandbox.people import ProfileGenerator, Row

COHORTS: Mapping[int, int] = MappingProxyType({1000: 10, 1001: 3})
GROUP_ID = "-1405123841946871899"
_GHOSTS = 3
PropertiesLike = str | Mapping[str, Any]


def today() -> str:
    """The present day in UTC, as an ISO date."""
    return datetime.now(timezone.utc).date().isoformat()


@dataclass(frozen=True)
class View:
    """A frozen list of profiles: numbers of a crowd, and the rows that differ from the seeded ones.

    `key` names the content: two views of one population with equal keys hold the same rows.
    """

    key: str
    generator: ProfileGenerator
    numbers: "array[int]"
    changes: Mapping[int, Row]

    def __len__(self) -> int:
        return len(self.numbers)

    def row(self, number: int) -> Row:
        return self.changes.get(number) or self.generator.row(number)

    def rows(self, start: int = 0, stop: int | None = None) -> Iterator[Row]:
        return map(self.row, self.numbers[start:stop])

    def profiles(self) -> Iterator[tuple[str, str]]:
        """(distinct_id, properties JSON text) of every row, in the order in which pages serve them."""
        return ((row.distinct_id, row.properties) for row in self.rows())

    def only(self, name: str, wanted: Callable[[int, Row], bool], more: Iterable[Row] = ()) -> "View":
        """The rows for which `wanted(number, row)` holds, then `more`; `name` tells this choice from others."""
        numbers = array("q", (n for n in self.numbers if wanted(n, self.row(n))))
        extra = {-1 - position: row for position, row in enumerate(more)}
        numbers.extend(extra)
        return View(f"{self.key}|{name}", self.generator, numbers, {**self.changes, **extra})


class Population:
    """A project's people and events, made from a seed, and changeable while a sandbox serves it. Thread-safe.

    profiles: how many people; events_per_day: how many events on each day from first_day to last_day (ISO dates, UTC,
    inclusive; last_day None: today). hostile mixes in awkward values. event_properties: size of the pool of further
    property names, eight of which each event carries. duplicate_every / no_insert_id_every: every n-th event is served
    twice (same key, later mp_processing_time_ms) / lacks its $insert_id. cohorts: {id: n}, every n-th person belongs.
    group_profiles: how many profiles the group type GROUP_ID has.
    """

    def __init__(
        self,
        profiles: int = 5_000,
        seed: int = 7,
        events_per_day: int = 1_000,
        first_day: str = "2024-01-01",
        last_day: str | None = None,
        *,
        hostile: bool = False,
        event_properties: int = 0,
        duplicate_every: int = 0,
        no_insert_id_every: int = 0,
        cohorts: Mapping[int, int] = COHORTS,
        group_profiles: int = 0,
    ) -> None:
        self.first_day, self.last_day, self.cohorts = first_day, last_day, dict(cohorts)
        self.groups = {GROUP_ID: Population(group_profiles, seed + 1)} if group_profiles else {}
        self._seeded, self._generator = profiles, ProfileGenerator(seed, hostile)
        self._event_generator = EventGenerator(
            seed, events_per_day, event_properties, duplicate_every, no_insert_id_every, hostile
        )
        self._lock = threading.RLock()
        self._view = View("0", self._generator, array("q", range(profiles)), {})
        self._revision, self._next_number = 0, profiles
        self._days: dict[str, _ChangedDay] = {}

    # People

    def __len__(self) -> int:
        return len(self._view)

    def view(self) -> View:
        """The people of this moment; later changes do not show in it."""
        return self._view

    def profiles(self) -> Iterator[tuple[str, str]]:
        """(distinct_id, properties JSON text exactly as served) of everyone now in the project."""
        return self._view.profiles()

    def add(self, distinct_id: str | int, properties: PropertiesLike) -> None:
        """A new person; an int id is served as a JSON number. Nothing checks that the id is new."""
        with self._lock:
            row = Row(json.dumps(distinct_id), _text(properties))
            numbers = self._view.numbers + array("q", [self._next_number])
            self._change(numbers, {**self._view.changes, self._next_number: row})
            self._next_number += 1

    def replace(self, distinct_id: str, properties: PropertiesLike) -> None:
        """Other properties for a person; KeyError when there is no such person."""
        with self._lock:
            number = self._number(distinct_id)
            row = Row(self._view.row(number).id_json, _text(properties))
            self._change(self._view.numbers, {**self._view.changes, number: row})

    def replace_every(self, every: int, properties: PropertiesLike) -> None:
        """The same other properties for every n-th person, at once."""
        with self._lock:
            text, numbers = _text(properties), self._view.numbers
            changed = {n: Row(self._view.row(n).id_json, text) for n in numbers if n % every == 0}
            self._change(numbers, {**self._view.changes, **changed})

    def remove(self, distinct_id: str) -> None:
        """KeyError when there is no such person."""
        with self._lock:
            number = self._number(distinct_id)
            self._change(array("q", (n for n in self._view.numbers if n != number)), self._view.changes)

    def in_cohort(self, cohort_id: int, *, include_all_users: bool, view: View) -> View:
        """The members of a cohort; with include_all_users also ids that have no profile. KeyError: no such cohort."""
        every = self.cohorts[cohort_id]
        ghosts = [Row(f'"no-profile-{cohort_id}-{n}"', "{}") for n in range(_GHOSTS)] if include_all_users else []
        return view.only(
            f"cohort {cohort_id} {every} {include_all_users}", lambda number, _: number % every == 0, ghosts
        )

    def _number(self, distinct_id: str) -> int:
        view = self._view
        for number in view.numbers:
            if view.row(number).distinct_id == distinct_id:
                return number
        raise KeyError(distinct_id)

    def _change(self, numbers: "array[int]", changes: Mapping[int, Row]) -> None:
        self._revision += 1
        self._view = View(str(self._revision), self._generator, numbers, changes)

    # Events

    def events(self, day: str, *, milliseconds: bool = False) -> Iterator[tuple[str, str]]:
        """(event name, properties JSON text exactly as served) of one day, in the order in which it is served."""
        changed = self._days.get(day, _UNCHANGED)
        if not changed.replaced and self._is_active(day):
            yield from self._event_generator.day(day, self._anyone, milliseconds=milliseconds)
        yield from changed.events

    def day_key(self, day: str) -> str:
        """Names the content of a day: equal keys, equal events."""
        return f"{day} {self._days.get(day, _UNCHANGED).revision} {self._is_active(day)}"

    def add_events(self, day: str, events: Iterable[tuple[str, PropertiesLike]]) -> None:
        """Late events (name, properties) of a day, after the others."""
        with self._lock:
            changed = self._days.get(day, _UNCHANGED)
            more = tuple(Event(name, _text(properties)) for name, properties in events)
            self._days[day] = _ChangedDay(changed.revision + 1, changed.events + more, changed.replaced)

    def replace_events(self, day: str, events: Iterable[tuple[str, PropertiesLike]]) -> None:
        """These events (name, properties) are all that a day holds; an empty list empties the day."""
        with self._lock:
            changed = self._days.get(day, _UNCHANGED)
            others = tuple(Event(name, _text(properties)) for name, properties in events)
            self._days[day] = _ChangedDay(changed.revision + 1, others, replaced=True)

    def merge(self, day: str, distinct_ids: Collection[str], canonical: str) -> None:
        """Have the events of these ids served under another one from now on, as after an identity merge."""
        served = [(name, json.loads(properties)) for name, properties in self.events(day, milliseconds=True)]
        for _, properties in served:
            if properties.get("distinct_id") in distinct_ids:
                properties.setdefault("$distinct_id_before_identity", properties["distinct_id"])
                properties |= {"distinct_id": canonical, "$is_reshuffled": True}
        self.replace_events(day, served)

    def _is_active(self, day: str) -> bool:
        return self.first_day <= day <= (self.last_day or today())

    def _anyone(self, bits: int) -> str:
        return self._generator.id_json(bits % self._seeded) if self._seeded else '""'


@dataclass(frozen=True)
class _ChangedDay:
    revision: int
    events: tuple[Event, ...]
    replaced: bool


_UNCHANGED = _ChangedDay(0, (), replaced=False)


def _text(properties: PropertiesLike) -> str:
    if isinstance(properties, str):
        return properties
    return json.dumps(properties, ensure_ascii=False, separators=(",", ":"))
