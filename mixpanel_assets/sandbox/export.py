"""The raw export endpoint: the events of some days as lines of JSON.

Belongs here: which lines an export holds. Not here: who may ask (server.py), framing (wire.py), faults (faults.py).
"""

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta

from mixpanel_assets.sandbox.bodies import Piece, PieceCache
from mixpanel_assets.sandbox.events import Event
from mixpanel_assets.sandbox.expressions import BadExpression, Predicate, predicate
from mixpanel_assets.sandbox.population import Population
from mixpanel_assets.sandbox.replies import FUTURE, TOO_OLD, Refused, Reply, error

_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_MOST_LIMIT = 100_000


@dataclass
class Export:
    """Serves days; `today` gives the project's present day as an ISO date, `history_days` how far back the plan serves
    (None: all)."""

    population: Population
    cache: PieceCache
    today: Callable[[], str]
    chunked: bool = True
    history_days: int | None = None

    def reply(self, params: Mapping[str, str], request: str) -> Reply:
        """The events that the parameters ask for; Refused with 400 when they make no sense."""
        days = self._days(params, request)
        choice = _Choice.of(params, request)
        if limit := params.get("limit"):
            pieces: tuple[Piece, ...] = (self._limited(days, choice, _limit(limit, request)),)
        else:
            pieces = tuple(self._day(day, choice) for day in days)
        rows = sum(piece.rows for piece in pieces)
        return Reply(200, pieces, "text/plain", chunked=self.chunked, rows=rows)

    def warm(self, from_day: str, to_day: str, *, milliseconds: bool = False) -> None:
        """Make and compress the unfiltered days of a range, inclusive."""
        for day in _range(date.fromisoformat(from_day), date.fromisoformat(to_day)):
            self._day(day, _Choice(milliseconds)).deflated()

    def _day(self, day: str, choice: "_Choice") -> Piece:
        key = (self.population.day_key(day), choice.key)
        return self.cache.piece(key, lambda: self._lines(day, choice))

    def _limited(self, days: list[str], choice: "_Choice", limit: int) -> Piece:
        lines = itertools.chain.from_iterable(self._lines(day, choice) for day in days)
        key = (tuple(map(self.population.day_key, days)), choice.key, limit)
        return self.cache.piece(key, lambda: itertools.islice(lines, limit))

    def _lines(self, day: str, choice: "_Choice") -> Iterator[str]:
        for name, properties in self.population.events(day, milliseconds=choice.milliseconds):
            if choice.wants(name, properties):
                yield Event(name, properties).text + "\n"

    def _days(self, params: Mapping[str, str], request: str) -> list[str]:
        first, last = (_day_parameter(params, name, request) for name in ("from_date", "to_date"))
        if last.isoformat() > self.today():
            raise Refused(error(400, FUTURE, request))
        if first > last:
            raise Refused(error(400, "from_date cannot be later than to_date", request))
        if self.history_days is not None and (date.fromisoformat(self.today()) - first).days > self.history_days:
            raise Refused(error(403, TOO_OLD % self.history_days, request))
        return list(_range(first, last))


@dataclass(frozen=True)
class _Choice:
    """Which events are wanted, and in which unit of time."""

    milliseconds: bool = False
    names: frozenset[str] | None = None
    where: str = ""
    holds: Predicate | None = None

    @classmethod
    def of(cls, params: Mapping[str, str], request: str) -> "_Choice":
        where = params.get("where", "")
        milliseconds = params.get("time_in_ms", "").lower() in ("true", "1")
        try:
            names = frozenset(map(str, json.loads(params["event"]))) if params.get("event") else None
            return cls(milliseconds, names, where, predicate(where) if where else None)
        except BadExpression as problem:
            raise Refused(error(400, f"Unable to parse where: {problem}", request)) from None
        except (ValueError, TypeError):
            raise Refused(error(400, "event must be a JSON array of names", request)) from None

    @property
    def key(self) -> tuple[object, ...]:
        return self.milliseconds, self.names, self.where

    def wants(self, name: str, properties: str) -> bool:
        if self.names is not None and name not in self.names:
            return False
        return self.holds is None or self.holds(json.loads(properties))


def _range(first: date, last: date) -> Iterator[str]:
    return ((first + timedelta(days=n)).isoformat() for n in range((last - first).days + 1))


def _day_parameter(params: Mapping[str, str], name: str, request: str) -> date:
    text = params.get(name, "")
    try:
        if _DATE.fullmatch(text):
            return date.fromisoformat(text)
    except ValueError:
        pass
    raise Refused(error(400, f"{name} must be a date as yyyy-mm-dd, not {text!r}", request))


def _limit(text: str, request: str) -> int:
    if not text.isdigit() or not 0 < int(text) <= _MOST_LIMIT:
        raise Refused(error(400, f"limit must be between 1 and {_MOST_LIMIT}, not {text!r}", request))
    return int(text)
