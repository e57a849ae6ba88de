"""Which days of events the server serves at all, as far as its refusals have told.

A server may refuse a range for its first day, which is older than the history that the project's plan serves, or for
its last, which does not exist yet where the server counts. That is no fault of the days between, and asking again
cannot help; so what one refusal tells holds for all ranges of a run.
"""

import datetime
import re
import threading
from dataclasses import dataclass
from enum import Enum

from mixpanel_assets.errors import FatalError

Days = tuple[str, str]

# About dates, and how far back: not about a quota of "the past 30 days", nor about the length of a range.
_TOO_OLD = re.compile(
    r"(date|range|days?)\b.*\b(exceed\w*\b.*\bin(to)? the past\b(?!\W*(\d|day|hour|week|month|year))"
    r"|(more|older|earlier|further|longer) than\b.*\b(ago|old|before today|in(to)? the past)\b)",
    re.IGNORECASE,
)
_DAYS_OF_HISTORY = re.compile(r"(?<![\d.,])(\d{1,3}(?:,\d{3})+|\d{1,6})\W{0,3}(?:[a-z]+\W+)?days?\b", re.IGNORECASE)
_NOT_YET = re.compile(
    r"\b(to|from)_?date\b.*\b((later than|after|beyond|past|exceeds?|greater than|ahead of) today|in the future)\b",
    re.IGNORECASE,
)
_NEVER = "9999-12-31"


class Edge(str, Enum):
    """Why a day is not served: it is older than the plan's history, or does not exist yet."""

    TOO_OLD = "too old"
    NOT_YET = "future"


@dataclass(frozen=True)
class Unserved:
    """Days that the server does not serve, and its words."""

    edge: Edge
    said: str


class EdgeRefusedError(FatalError):
    """A range was refused for its first or its last day alone.

    Args:
        message: What happened, in one line.
        unserved: For which, and the server's words.
        history_days: How far back the history reaches, where the words say it.
    """

    def __init__(self, message: str, unserved: Unserved, history_days: int | None = None) -> None:
        super().__init__(message)
        self.unserved = unserved
        self.history_days = history_days


class KnownRefusalError(EdgeRefusedError):
    """The range would be refused, by what was refused before: it was not asked for."""


def edge_refused(message: str, text: str) -> EdgeRefusedError | None:
    """The error for a refusal with this text, if it is about an edge of the range."""
    if _TOO_OLD.search(text):
        told = _DAYS_OF_HISTORY.search(text)
        return EdgeRefusedError(message, Unserved(Edge.TOO_OLD, text), int(told[1].replace(",", "")) if told else None)
    return EdgeRefusedError(message, Unserved(Edge.NOT_YET, text)) if _NOT_YET.search(text) else None


class ServedDays:
    """What was told so far. Days are ISO dates, ranges inclusive. Safe to share between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last_too_old = ""
        self._first_not_yet = _NEVER
        self._told: dict[Edge, Unserved] = {}

    def note(self, refused: EdgeRefusedError, days: Days, today: str) -> None:
        """Take in that a range was refused. Where the words say how far back the history reaches from `today`, all days
        before are taken for too old; but not if by that the day that was refused would not be.
        """
        first, last = days
        with self._lock:
            self._told.setdefault(refused.unserved.edge, refused.unserved)
            if refused.unserved.edge is Edge.NOT_YET:
                self._first_not_yet = min(self._first_not_yet, last)
                return
            today = min(today, shifted(self._first_not_yet, -1))
            before = "" if refused.history_days is None else shifted(today, -refused.history_days - 1)
            self._last_too_old = max(self._last_too_old, first, before)

    def cut(self, days: Days) -> tuple[Days | None, list[tuple[Days, Unserved]]]:
        """What of a range may be asked for, and what is known not to be served."""
        first, last = days
        with self._lock:
            too_old, not_yet, told = self._last_too_old, self._first_not_yet, dict(self._told)
        unserved: list[tuple[Days, Unserved]] = []
        if first <= too_old:
            unserved.append(((first, min(last, too_old)), told[Edge.TOO_OLD]))
            first = shifted(too_old, 1)
        if last >= not_yet:
            unserved.append(((max(first, not_yet), last), told[Edge.NOT_YET]))
            last = shifted(not_yet, -1)
        unserved = [(each, why) for each, why in unserved if each[0] <= each[1]]
        return ((first, last) if first <= last else None), unserved

    def check(self, days: Days, what: str) -> None:
        """Refuse a range with a day that is known not to be served.

        Raises:
            KnownRefusalError: there is one.
        """
        _, unserved = self.cut(days)
        if unserved:
            why = unserved[0][1]
            raise KnownRefusalError(f"{what}: not all of it is served: {why.said}", why)


def narrower(days: Days, edge: Edge, step: int) -> list[Days]:
    """A range that was refused for one of its edges, as two: without the `step` days there, and those."""
    first, last = days
    length = (datetime.date.fromisoformat(last) - datetime.date.fromisoformat(first)).days + 1
    if length == 1:
        return [days]
    cut = min(step, length - 1)
    if edge is Edge.TOO_OLD:
        start = shifted(first, cut)
        return [(start, last), (first, shifted(start, -1))]
    end = shifted(last, -cut)
    return [(first, end), (shifted(end, 1), last)]


def shifted(day: str, days: int) -> str:
    """The day so many days later, or before; empty beyond the calendar."""
    try:
        return (datetime.date.fromisoformat(day) + datetime.timedelta(days=days)).isoformat()
    except OverflowError:  # A history of millennia.
        return ""
