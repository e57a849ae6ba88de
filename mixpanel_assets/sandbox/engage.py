"""The engage endpoint: sessions over frozen views, one page of one of them, and what properties profiles have.

Belongs here: which rows a page holds, and the page's JSON. Not here: who may ask (server.py), faults (faults.py).
"""

import json
import re
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mixpanel_assets.sandbox.behaviors import behaviors
from mixpanel_assets.sandbox.bodies import Piece, PieceCache, piece_of
from mixpanel_assets.sandbox.expressions import BadExpression, only_members, predicate
from mixpanel_assets.sandbox.people import Row
from mixpanel_assets.sandbox.population import Population, View
from mixpanel_assets.sandbox.replies import UNCACHED, Refused, Reply, error, text_reply

_DATETIME = re.compile(r"\d{4}-\d{2}-\d{2}[T ]\d{2}:\d{2}(:\d{2})?(\.\d+)?(Z|[+-]\d{2}:?\d{2})?")


@dataclass(frozen=True)
class Paging:
    """page_size rows unless the request says otherwise (up to cap, and unless ignored); total on page 0 or on all."""

    page_size: int = 1000
    cap: int = 50_000
    ignore_request: bool = False
    total_on_all_pages: bool = False

    def size(self, params: Mapping[str, str]) -> int:
        wanted = params.get("page_size", "")
        return (
            min(int(wanted), self.cap)
            if wanted.isdigit() and int(wanted) and not self.ignore_request
            else self.page_size
        )


@dataclass(frozen=True)
class Session:
    """One query, frozen: its rows, the properties wanted of them (None: all), and the size of its pages. Mixpanel keeps
    none for a query with behaviors that names no moment: it has a first page only."""

    session_id: str
    view: View
    wanted: frozenset[str] | None
    page_size: int
    only_first_page: bool = False

    @property
    def number(self) -> str:
        """The part of its id that is a number, by which it is known too."""
        return self.session_id.partition("-")[0]

    def rows(self, page: int, size: int) -> Iterator[str]:
        """The JSON text of each row of a page."""
        for row in self.view.rows(page * size, (page + 1) * size):
            yield self._text(row)

    def _text(self, row: Row) -> str:
        return row.text if self.wanted is None else Row(row.id_json, only_members(row.properties, self.wanted)).text


@dataclass(frozen=True)
class Page:
    """An answer of engage before it is written down; faults replace its parts. `session_id` is JSON text."""

    session: Session
    page: int
    page_size: int
    total: int | None
    rows: int
    results: Piece | None
    session_id: str | None
    told_page: int | None = None
    project_id: int | None = None
    only_results: bool = False

    def reply(self) -> Reply:
        page = self.page if self.told_page is None else self.told_page
        head = f'{{"page":{page},"page_size":{self.page_size},'
        opened = head + '"results":[' if self.results else head
        tail = "" if self.session_id is None else f'"session_id":{self.session_id},'
        tail += '"status":"ok"'
        tail += "" if self.project_id is None else f',"project_id":{self.project_id}'
        tail += "" if self.total is None else f',"total":{self.total}'
        if self.only_results:
            opened, tail = '{"results":[', '"status":"ok"'
        pieces = [piece_of(opened.encode())]
        if self.results:
            pieces.append(self.results)
        pieces.append(piece_of((("]," if self.results else "") + tail + "}").encode()))
        return Reply(200, tuple(pieces), rows=self.rows)

    def with_rows(self, rows: list[str]) -> "Page":
        return replace(self, results=piece_of(",".join(rows).encode(), len(rows)))


@dataclass
class Engage:
    """Opens sessions and makes their pages. Thread-safe."""

    population: Population
    cache: PieceCache
    paging: Paging
    _open: dict[str, Session] = field(default_factory=dict)
    _all: dict[str, Session] = field(default_factory=dict)
    _by_number: dict[str, Session] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def page(self, params: Mapping[str, str], request: str) -> Page:
        """The page that the parameters ask for; Refused with 400 when they make no sense or the session is unknown."""
        number = _page_number(params, request)
        session = self._session(params, number, request)
        total = len(session.view) if number == 0 or self.paging.total_on_all_pages else None
        results = self.results(session, number, session.page_size)
        session_id = json.dumps(session.session_id)
        return Page(session, number, session.page_size, total, results.rows, results, session_id)

    def results(self, session: Session, page: int, size: int) -> Piece:
        key = (session.view.key, session.wanted, page, size)
        return self.cache.piece(key, lambda: session.rows(page, size), ",")

    def properties(self, params: Mapping[str, str], request: str) -> Reply:
        """The most frequent properties of the profiles, with the type that most of their values have."""
        limit = params.get("limit", "")
        if limit and not limit.isdecimal():
            raise Refused(error(400, f"limit must be a non-negative integer, not {limit!r}", request))
        found: dict[str, Counter[str]] = {}
        for row in self._population(params).view().rows():
            for name, value in json.loads(row.properties).items():
                if value is not None:
                    found.setdefault(name, Counter())[_type(value)] += 1
        most = sorted(found.items(), key=lambda item: -item[1].total())[: int(limit) if limit else None]
        results = {name: {"count": types.total(), "type": types.most_common(1)[0][0]} for name, types in most}
        return text_reply(200, json.dumps({"results": results, "status": "ok"}))

    def warm(self) -> None:
        """Make and compress every page of the present population, as an unfiltered session would ask for them."""
        size = self.paging.page_size
        session = Session("", self.population.view(), None, size)
        for page in range(-(-len(session.view) // size)):
            self.results(session, page, size).deflated()

    def served(self, session_id: str) -> View:
        """What a session, open or lost, was opened on; KeyError when there never was one."""
        return self._all[session_id].view

    def forget(self, session_id: str) -> None:
        self._open.pop(session_id, None)
        self._by_number.pop(session_id, None)

    def forget_all(self) -> None:
        self._open.clear()
        self._by_number.clear()

    def _session(self, params: Mapping[str, str], page: int, request: str) -> Session:
        session_id = params.get("session_id")
        if session_id:
            found = self._open.get(session_id) or self._by_number.get(session_id)
        elif page:
            found = None
        else:
            found = self._begin(params, request)
        if found is None or (page and found.only_first_page):
            raise Refused(error(400, UNCACHED, request))
        return found

    def _begin(self, params: Mapping[str, str], request: str) -> Session:
        wanted = _json_parameter(params, "output_properties", request)
        names = None if wanted is None else frozenset(map(str, wanted))
        view = self._view(params, request)
        session = Session(
            f"{1700000000 + len(self._all)}-{secrets.token_hex(4)}",
            view,
            names,
            self.paging.size(params),
            only_first_page="behaviors" in params and "as_of_timestamp" not in params,
        )
        with self._lock:
            self._open[session.session_id] = self._all[session.session_id] = self._by_number[session.number] = session
        return session

    def _population(self, params: Mapping[str, str]) -> Population:
        group = params.get("data_group_id")
        return self.population.groups.get(group, _NOBODY) if group else self.population

    def _view(self, params: Mapping[str, str], request: str) -> View:
        population = self._population(params)
        view = population.view()
        if group := params.get("data_group_id"):
            view = replace(view, key=f"group {group} {view.key}")
        if cohort := _json_parameter(params, "filter_by_cohort", request):
            if "behaviors" in params:
                raise Refused(error(400, "filter_by_cohort and behaviors cannot be combined", request))
            view = self._cohort(cohort, params, population, view, request)
        if wanted := params.get("distinct_id"):
            view = view.only(f"id {wanted}", lambda _, row: row.distinct_id == wanted)
        if (listed := _json_parameter(params, "distinct_ids", request)) is not None:
            if not isinstance(listed, list):
                raise Refused(error(400, "distinct_ids must be a JSON array", request))
            ids = frozenset(map(str, listed))
            view = view.only(f"ids {sorted(ids)}", lambda _, row: row.distinct_id in ids)
        done = self._behaviors(params, request)
        if where := params.get("where") or params.get("selector"):
            view = _where(view, where, done, request)
        # Events are no part of a view's key, so that what was chosen by them is its own.
        return replace(view, key=f"{view.key}|session {len(self._all)}") if done else view

    def _behaviors(self, params: Mapping[str, str], request: str) -> dict[str, Counter[str]]:
        """By name, how often each distinct_id did it."""
        moment = params.get("as_of_timestamp") or str(int(time.time()))
        if not moment.isdecimal():
            raise Refused(error(400, f"as_of_timestamp must be seconds since 1970, not {moment!r}", request))
        given = _json_parameter(params, "behaviors", request)
        try:
            return {one.name: one.counts(self.population, int(moment)) for one in behaviors(given or [])}
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError, OSError):
            raise Refused(error(400, f"Invalid behaviors: {json.dumps(given)}", request)) from None

    def _cohort(self, cohort: Any, params: Mapping[str, str], population: Population, view: View, request: str) -> View:
        everyone = params.get("include_all_users", "true").lower() not in ("false", "0")
        try:
            return population.in_cohort(int(cohort["id"]), include_all_users=everyone, view=view)
        except (KeyError, TypeError, ValueError):
            raise Refused(error(400, f"Unknown cohort {json.dumps(cohort)}", request)) from None


_NOBODY = Population(0)


def _where(view: View, where: str, done: Mapping[str, Counter[str]], request: str) -> View:
    try:
        holds = predicate(where, behaviors=done)
    except BadExpression as problem:
        raise Refused(error(400, f"Unable to parse where: {problem}", request)) from None

    def wanted(_: int, row: Row) -> bool:
        return holds(json.loads(row.properties), {name: counts[row.distinct_id] for name, counts in done.items()})

    return view.only(f"where {where}", wanted)


def _type(value: Any) -> str:
    """Mixpanel's word for the type of a value that is not null."""
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "datetime" if _DATETIME.fullmatch(value) else "string"
    return "number" if isinstance(value, int | float) else "list" if isinstance(value, list) else "object"


def _page_number(params: Mapping[str, str], request: str) -> int:
    text = params.get("page", "0")
    if not text.isdigit():
        raise Refused(error(400, f"page must be a non-negative integer, not {text!r}", request))
    return int(text)


def _json_parameter(params: Mapping[str, str], name: str, request: str) -> Any:
    if not params.get(name):
        return None
    try:
        return json.loads(params[name])
    except ValueError:
        raise Refused(error(400, f"{name} must be JSON", request)) from None
