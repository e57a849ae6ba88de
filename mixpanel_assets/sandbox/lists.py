"""The endpoints that answer with one list: which objects it holds, and its JSON.

Belongs here: what is on a list. Not here: who may ask (server.py), faults (faults.py).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mixpanel_assets.sandbox.population import Population
from mixpanel_assets.sandbox.replies import Reply, text_reply

ANNOTATIONS = (
    {
        "id": 501,
        "project_id": 1234567,
        "date": "2026-01-15 12:00:00",
        "description": "Version 2 is out",
        "user": {"id": 7, "first_name": "Ada", "last_name": "Example"},
        "tags": [{"id": 1, "name": "release"}],
    },
    {"id": 502, "project_id": 1234567, "date": "2026-02-20 08:30:00", "description": "Outage", "tags": []},
)

SCHEMAS = (
    {
        "entityType": "event",
        "name": "Sign up",
        "schemaJson": {
            "description": "Somebody made an account",
            "properties": {
                "plan": {"type": "string", "description": "What they pay for"},
                "debug": {"type": "boolean", "metadata": {"com.mixpanel": {"hidden": True, "dropped": True}}},
            },
            "metadata": {"com.mixpanel": {"displayName": "New account", "tags": ["core"], "hidden": False}},
        },
    },
    {"entityType": "profile", "name": "$user", "schemaJson": {"properties": {"$email": {"type": "string"}}}},
)


class Lists:
    """The lists of a project, whose items may be any JSON value. `cohorts` replaces those of the population."""

    def __init__(self, population: Population, project_id: str) -> None:
        self._population, self._project_id = population, project_id
        self.cohorts: Iterable[Any] | None = None
        self.annotations: Iterable[Any] = ANNOTATIONS
        self.schemas: Iterable[Any] = SCHEMAS

    def reply(self, endpoint: str, params: Mapping[str, str]) -> Reply:
        """The list of an endpoint: bare in the Query API, as `results` in the App API."""
        if endpoint == "cohorts/list":
            items = list(self._cohorts() if self.cohorts is None else self.cohorts)
            return _listed(items, items)
        if endpoint == "annotations":
            items = [item for item in self.annotations if _is_between(item, params)]
        else:
            kind = params.get("entity_type")
            items = [item for item in self.schemas if kind is None or item.get("entityType") == kind]
        return _listed(items, {"status": "ok", "results": items})

    def _cohorts(self) -> Iterable[Mapping[str, Any]]:
        for cohort_id, every in self._population.cohorts.items():
            yield {
                "count": len(range(0, len(self._population), every)),
                "is_visible": 1,
                "description": f"every {every}. person",
                "created": "2024-03-19 23:49:51",
                "project_id": int(self._project_id),
                "id": cohort_id,
                "name": f"Cohort {cohort_id}",
            }


def _is_between(item: Any, params: Mapping[str, str]) -> bool:
    """Whether an item lies between the days of the parameters, both included; what has no day does."""
    date = item.get("date") if isinstance(item, dict) else None
    day = date[:10] if isinstance(date, str) else ""
    return not day or params.get("fromDate", day) <= day <= params.get("toDate", day)


def _listed(items: Sequence[Any], answer: Any) -> Reply:
    reply = text_reply(200, json.dumps(answer, ensure_ascii=False))
    return Reply(reply.status, reply.pieces, rows=len(items))
