"""What people did: the `behaviors` of an engage query, counted in the events.

Belongs here: reading the parameter, and counting. Not here: the expression that compares the counts (expressions.py).
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from mixpanel_assets.sandbox.expressions import Predicate, predicate
from mixpanel_assets.sandbox.population import Population

_WINDOW = re.compile(r"(\d{1,4})([hdw])")
_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}


@dataclass(frozen=True)
class _Selector:
    """Events of one name for which an expression holds."""

    event: str
    holds: Predicate | None

    def chooses(self, event: str, properties: Mapping[str, Any]) -> bool:
        return event == self.event and (self.holds is None or self.holds(properties))


@dataclass(frozen=True)
class Behavior:
    """Events that one of the selectors chooses, in a window that ends at the moment asked about."""

    name: str
    window: timedelta
    selectors: tuple[_Selector, ...]

    def counts(self, population: Population, as_of: float) -> Counter[str]:
        """How often each distinct_id did it until `as_of`, in seconds since 1970."""
        end = datetime.fromtimestamp(as_of, timezone.utc)
        begin, found = end - self.window, Counter[str]()
        for days in range((end.date() - begin.date()).days + 1):
            for event, text in population.events((begin.date() + timedelta(days=days)).isoformat()):
                if not any(event == selector.event for selector in self.selectors):
                    continue
                properties = json.loads(text)
                is_chosen = any(selector.chooses(event, properties) for selector in self.selectors)
                if is_chosen and begin.timestamp() < properties.get("time", 0) <= as_of:
                    found[str(properties.get("distinct_id"))] += 1
        return found


def behaviors(given: Any) -> Sequence[Behavior]:
    """Those of the parameter `behaviors`, as Python values.

    Raises:
        ValueError, LookupError, TypeError, AttributeError: it is not a list of behaviors.
    """
    if not isinstance(given, list):
        raise TypeError("not a list")
    return [_behavior(item) for item in given]


def _behavior(item: Mapping[str, Any]) -> Behavior:
    window = _WINDOW.fullmatch(item["window"])
    if window is None or not item["event_selectors"]:
        raise ValueError(item)
    selectors = tuple(
        _Selector(str(chosen["event"]), predicate(chosen["selector"]) if chosen.get("selector") else None)
        for chosen in item["event_selectors"]
    )
    return Behavior(str(item["name"]), int(window[1]) * _UNITS[window[2]], selectors)
