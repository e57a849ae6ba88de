"""Seeded events: the lines of one day as text, without keeping any.

Belongs here: how the events of a day look. Not here: late or replaced events (population.py), files and gzip
(bodies.py). About 500 bytes and 3 us per event.
"""

import calendar
import json
import random
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import NamedTuple

from mixpanel_assets.sandbox.hostile import hostile_member
from mixpanel_assets.sandbox.people import PLANS

NAMES = ("Page View", "Signed up", "Song Played", "Checkout", "$identify", "Invite sent", "Search", "Page View")
_BROWSERS = ("Chrome", "Safari", "Firefox", "Edge", "Mobile Safari", "Samsung Internet", "Opera", "Chrome iOS")
_SYSTEMS = ("Windows", "Mac OS X", "Linux", "Windows", "iOS", "Android", "Mac OS X", "iOS")
_CITIES = ("Amsterdam", "São Paulo", "Nairobi", "Kraków", "Bengaluru", "San Francisco", "東京", "Zürich")
_DEVICES = tuple(
    f'"$browser":"{_BROWSERS[n % 8]}","$browser_version":{90 + n},"$os":"{_SYSTEMS[n % 8]}","$screen_height":{600 + n},'
    f'"$screen_width":{1000 + 8 * n},"mp_lib":"web","$lib_version":"2.{n}.0","$city":"{_CITIES[n // 8]}"'
    for n in range(64)
)
_EVENT = (
    '{"time":%d,"distinct_id":%s,%s"mp_processing_time_ms":%d,%s,"$current_url":"https://shop.example/%x/item?ref=%d",'
    '"plan":"%s","amount":%d.%02d,"items":["i%d","i%d"],"logged_in":%s,"note":"generated for day %s, number %d"%s}'
)


@lru_cache
def _quoted(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)


class Event(NamedTuple):
    """One exported event: its name and the JSON text of its properties, exactly as served."""

    name: str
    properties: str

    @property
    def text(self) -> str:
        return f'{{"event":{_quoted(self.name)},"properties":{self.properties}}}'


@dataclass(frozen=True)
class EventGenerator:
    """How a seed's events look: `wide` property names are spread over the events (8 each), every n-th event is served
    twice (`duplicate_every`) or lacks its `$insert_id` (`no_insert_id_every`); 0 means never."""

    seed: int
    per_day: int
    wide: int = 0
    duplicate_every: int = 0
    no_insert_id_every: int = 0
    hostile: bool = False

    def day(self, day: str, who: Callable[[int], str], *, milliseconds: bool = False) -> Iterator[Event]:
        """The events of one day (ISO date, UTC) in order of time; `who` gives the JSON text of a distinct_id for a
        random number. Duplicates follow their original with a later `mp_processing_time_ms`."""
        midnight = calendar.timegm(date.fromisoformat(day).timetuple())
        randoms = struct.unpack(f"<{self.per_day}Q", random.Random(f"{self.seed} {day}").randbytes(8 * self.per_day))
        for number, bits in enumerate(randoms):
            time = midnight + number * 86_400 // self.per_day
            yield self._event(day, number, bits, time, who(bits >> 40), 0, milliseconds=milliseconds)
            if self.duplicate_every and number % self.duplicate_every == 0:
                yield self._event(day, number, bits, time, who(bits >> 40), 61_000, milliseconds=milliseconds)

    def _event(self, day: str, number: int, bits: int, time: int, who: str, later: int, *, milliseconds: bool) -> Event:
        without = self.no_insert_id_every and number % self.no_insert_id_every == 0
        insert_id = "" if without else f'"$insert_id":"{day}-{number:08d}-{bits:016x}",'
        a, b = bits & 0xFFF, (bits >> 12) & 0xFFF
        properties = _EVENT % (
            time * 1000 + a % 1000 if milliseconds else time, who, insert_id, time * 1000 + 900 + b + later,
            _DEVICES[(bits >> 24) & 63], b, a, PLANS[a % 7], b, a % 100, a % 300, b % 300,
            "true" if a & 1 else "false", day, number, self._more(number),
        )  # fmt: skip
        return Event(NAMES[(bits >> 30) & 7], properties)

    def _more(self, number: int) -> str:
        more = hostile_member(number) if self.hostile else ""
        if not self.wide:
            return more
        names = ((number * 8 + k) % self.wide for k in range(min(8, self.wide)))
        return more + "".join(f',"property {name:03d}":"value {name % 7} of {number % 50}"' for name in names)
