"""Seeded people: one profile row by its number, as text, without keeping any.

Belongs here: how person number n of a seed looks. Not here: who is in the project now (population.py), awkward values
(hostile.py). A row is made from templates, never by dumping Python values, so that what is served is exactly what is
written here, and so that a page of 1,000 rows takes about 10 ms to make.
"""

import json
from dataclasses import dataclass
from datetime import date, timedelta
from typing import NamedTuple

from mixpanel_assets.sandbox.hostile import hostile_id, hostile_profile_member

_MASK = (1 << 64) - 1
_FIRST_NAMES = (
    *("Ada", "Björk", "Chinua", "Dilnoza", "Édith", "Fatima", "Grace", "Hedy"),
    *("Ines", "José", "Katherine", "Lise", "Mary", "Nour", "Olga", "Priya"),
)
_LAST_NAMES = (
    *("Lovelace", "Guðmundsdóttir", "Achebe", "Karimova", "Piaf", "al-Fihri", "Hopper"),
    *("Lamarr", "Silva", "Núñez", "Johnson", "Meitner", "Curie"),
)
_PLACES = (
    ("Amsterdam", "North Holland", "NL", "Europe/Amsterdam"),
    ("São Paulo", "São Paulo", "BR", "America/Sao_Paulo"),
    ("Nairobi", "Nairobi County", "KE", "Africa/Nairobi"),
    ("Kraków", "Lesser Poland", "PL", "Europe/Warsaw"),
    ("Bengaluru", "Karnataka", "IN", "Asia/Kolkata"),
    ("San Francisco", "California", "US", "America/Los_Angeles"),
    ("東京", "東京都", "JP", "Asia/Tokyo"),
)
PLANS = ("free", "free", "free", "pro", "pro", "team", "enterprise")
_SYSTEMS = (("Mac OS X", "Safari"), ("Windows", "Chrome"), ("Android", "Chrome Mobile"), ("iOS", "Mobile Safari"))
_TAGS = ('["beta"]', '["newsletter","beta"]', "[]", '["vip","newsletter","2024"]', '["trial"]')
_DAYS = tuple((date(2024, 1, 1) + timedelta(days=n)).isoformat() for n in range(366))

_PROPERTIES = (
    '{"$email":"%s.%d@example.com","$first_name":"%s","$last_name":"%s","$name":"%s %s","$city":"%s","$region":"%s",'
    '"$country_code":"%s","$timezone":"%s","$created":"%sT%02d:15:%02d","$last_seen":"%sT%02d:%02d:%02d","$os":"%s",'
    '"$browser":"%s","plan":"%s","sessions":%d,"lifetime_value":%d.%02d,"is_admin":%s,"referrer":null,"tags":%s,'
    '"company":{"name":"%s & %s Ltd","size":%d,"address":{"lines":["%d Main Street","Floor %d"],"zip":"%05d"}},'
    '"devices":[{"os":"%s","model":"M-%d","push":true},{"os":"web","model":null,"push":false}],"score":%d.%d%s}'
)


class Row(NamedTuple):
    """One profile as it is served: the JSON text of its id (`"ab"` or `12`) and the JSON text of its properties."""

    id_json: str
    properties: str

    @property
    def text(self) -> str:
        return f'{{"$distinct_id":{self.id_json},"$properties":{self.properties}}}'

    @property
    def distinct_id(self) -> str:
        """The id as a string, whatever its JSON type."""
        if not self.id_json.startswith('"'):
            return self.id_json
        return str(json.loads(self.id_json)) if "\\" in self.id_json else self.id_json[1:-1]


def mix(number: int) -> int:
    """splitmix64: 64 well-spread bits of a number; a bijection, so that ids made from it never collide."""
    z = (number * 0x9E3779B97F4A7C15) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)


@dataclass(frozen=True)
class ProfileGenerator:
    """Everyone a seed can make, by number (0, 1, 2, ...); `hostile` mixes in rows that break careless clients."""

    seed: int
    hostile: bool = False

    def id_json(self, number: int) -> str:
        bits = mix((self.seed << 32) + number + 1)
        if self.hostile and number % 5 == 1:
            return hostile_id(number)
        return f'"{bits >> 32:08x}-{(bits >> 16) & 0xFFFF:04x}-4{bits & 0xFFF:03x}-{number:09d}"'

    def row(self, number: int) -> Row:
        return Row(self.id_json(number), self._properties(number))

    def _properties(self, number: int) -> str:
        bits = mix((self.seed << 32) + number + 0x5DEECE66D)
        first, last = _FIRST_NAMES[bits & 15], _LAST_NAMES[(bits >> 4) % len(_LAST_NAMES)]
        city, region, country, zone = _PLACES[(bits >> 8) % len(_PLACES)]
        system, browser = _SYSTEMS[(bits >> 12) & 3]
        a, b, c = (bits >> 14) & 0xFFF, (bits >> 26) & 0xFFF, (bits >> 38) & 0xFFF
        return _PROPERTIES % (
            f"user{a}", number, first, last, first, last, city, region, country, zone,
            _DAYS[a % 180], a % 24, b % 60, _DAYS[180 + b % 186], b % 24, a % 60, c % 60, system, browser,
            PLANS[c % 7], c, b, a % 100, "true" if a % 50 == 0 else "false", _TAGS[b % 5],
            last, city, a, b % 300, c % 40, (a * b) % 100_000, system, c % 9, a % 100, b % 10,
            hostile_profile_member(number) if self.hostile else "",
        )  # fmt: skip
