"""The endpoints that answer with one list: which objects it holds, and its JSON.

Belongs here: what is on a list. Not here: who may ask (server.py), faults (faults.py).
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from mixpanel_assets.sandbox.population import Population
from mixpanel_assets.sandbox.replies import Reply, text_reply


class Lists:
    """The lists of a project. `cohorts` replaces those of the population; an item may be any JSON value."""

    def __init__(self, population: Population, project_id: str) -> None:
        self._population, self._project_id = population, project_id
        self.cohorts: Iterable[Any] | None = None

    def reply(self) -> Reply:
        """The list of cohorts."""
        items = list(self._cohorts() if self.cohorts is None else self.cohorts)
        reply = text_reply(200, json.dumps(items, ensure_ascii=False))
        return Reply(reply.status, reply.pieces, rows=len(items))

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
