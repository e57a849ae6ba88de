"""Faults on request: a script, as data, of what goes wrong with which request.

Belongs here: which faults exist and what each does to an answer. Not here: sending bytes (wire.py), limits that really
count (limits.py). The first fault of the script that matches a request, and is not used up, happens to it.

    do                   what the client gets                                               argument, fields
    delay                the true answer, late (`seconds` delays every other fault too)
    status:503           that status; HTML for 502-504, JSON else                           body, headers, retry_after
    limited:window       429 as the rolling window gives it                                 retry_after (3600)
    limited:concurrency  429 as the concurrency limit gives it                              retry_after (10)
    limited:shedding     429 without limit headers                                          retry_after (none)
    timeout-error        400 with "Timeout Error."
    auth-error           400 with "Unable to authenticate request"
    date-error           400 with "to_date cannot be later than today"
    session-lost         400 uncached query; the session is lost for all its other pages too
    json-error-200       200, the whole body a JSON error                                   body
    not-json             200, an HTML body                                                  body
    drop                 the connection closes before any header
    reset                RST amid the body                                                  keep
    short-body           Content-Length larger than the body, then a close                  keep
    no-final-chunk       chunked, closed before the last chunk                              keep
    gzip-cut             a gzip stream cut inside correct framing                           keep
    no-framing           neither length nor chunks: cut, and closed as if complete          keep (1.0: whole)
    trickle              the true answer, its body spread over `seconds`
    cut                  the body cut anywhere, correct framing                             keep
    line-cut             the body cut at a line end, correct framing                        keep
    terminated-early     line-cut, then the line "terminated early"                         keep, body
    error-line           line-cut, then a JSON error as the last line                       keep, body
    no-results           a page without `results`
    rows-without-id      the first n rows lack $distinct_id                                 n (1)
    rows-not-objects     the first n rows are a number, a string or null                    n (3)
    empty-page           `results` is []
    short-page           the last n rows are missing                                        n (half)
    repeated-page        the rows of page n                                                 n (0)
    duplicate-rows       the last n rows of the page before come first, besides its own     n (3)
    total:missing        no `total` (also total:growing, total:shrinking: by page, total:123)
    page-size:250        the page holds 250 rows per page and says so, whatever was asked
"""

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from mixpanel_assets.sandbox.bodies import piece_of, plain_blocks
from mixpanel_assets.sandbox.engage import Engage, Page
from mixpanel_assets.sandbox.replies import (
    FUTURE,
    UNAUTHENTICATED,
    UNCACHED,
    Quota,
    Reply,
    error,
    plain_status,
    text_reply,
)
from mixpanel_assets.sandbox.wire import Damage

_WIRE = frozenset({"drop", "reset", "short-body", "no-final-chunk", "gzip-cut", "no-framing", "trickle"})
_LINES = frozenset({"cut", "line-cut", "terminated-early", "error-line"})
_ERRORS = {"timeout-error": "Timeout Error.", "auth-error": UNAUTHENTICATED, "date-error": FUTURE}
_WHOLE = frozenset({"status", "limited", "session-lost", "json-error-200", "not-json", *_ERRORS})
_LAST_LINES = {"terminated-early": "terminated early", "error-line": '{"error":"Internal error, export aborted"}'}
_HTML = "<html><body>Please log in</body></html>"


@dataclass(frozen=True)
class Fault:
    """One line of the script. It matches requests of its endpoint ("engage", "export") with its page or from_date
    (None: any); it lets the first `after` matches pass, then happens `times` times (None: for ever). `do` is of the
    table above; `keep` is the fraction of a body (or of its lines) that arrives."""

    endpoint: str
    do: str
    page: int | None = None
    from_date: str | None = None
    times: int | None = 1
    after: int = 0
    seconds: float = 0.0
    keep: float = 0.5
    body: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    retry_after: int | None = None

    def __post_init__(self) -> None:
        if self.endpoint not in ("engage", "export"):
            raise ValueError(f'endpoint must be "engage" or "export", not {self.endpoint!r}')
        if self.kind not in _KINDS:
            raise ValueError(f"unknown fault {self.do!r}; there are: {', '.join(sorted(_KINDS))}")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Fault":
        """ValueError when a key or a kind is unknown."""
        if unknown := set(data) - {f.name for f in fields(cls)}:
            raise ValueError(f"a fault has no {', '.join(sorted(unknown))}")
        return cls(**data)

    @property
    def kind(self) -> str:
        return self.do.partition(":")[0]

    @property
    def argument(self) -> str:
        return self.do.partition(":")[2]

    @property
    def damage(self) -> Damage | None:
        """What it does on the wire."""
        return Damage(self.kind, self.keep, self.seconds) if self.kind in _WIRE else None

    def matches(self, endpoint: str, page: int | None, from_date: str | None) -> bool:
        return self.endpoint == endpoint and self.page in (None, page) and self.from_date in (None, from_date)

    def number(self, default: int) -> int:
        return int(self.argument or default)


class FaultScript:
    """Which fault, if any, happens to a request. `faults` may be changed at any time. Thread-safe."""

    def __init__(self, faults: list[Fault]) -> None:
        self.faults = faults
        self._lock = threading.Lock()
        self._matched: dict[int, tuple[Fault, int]] = {}

    def next(self, endpoint: str, page: int | None, from_date: str | None) -> Fault | None:
        with self._lock:
            for fault in list(self.faults):
                if fault.matches(endpoint, page, from_date) and self._is_due(fault):
                    return fault
        return None

    def _is_due(self, fault: Fault) -> bool:
        # By identity, with the fault kept alive: two equal lines of a script are two faults.
        _, before = self._matched.get(id(fault), (fault, 0))
        self._matched[id(fault)] = (fault, before + 1)
        return before >= fault.after and (fault.times is None or before < fault.after + fault.times)


def instead(fault: Fault, request: str, quota: Quota) -> Reply | None:
    """The reply that a fault gives instead of the true one; None when it changes the true one, or only the wire."""
    if fault.kind not in _WHOLE:
        return None
    reply = _whole(fault, request, quota)
    headers = {**reply.headers, **fault.headers}
    if fault.retry_after is not None:
        headers["Retry-After"] = str(fault.retry_after)
    if fault.body is not None:
        reply = text_reply(reply.status, fault.body, reply.content_type)
    return replace(reply, headers=headers)


def _whole(fault: Fault, request: str, quota: Quota) -> Reply:
    if fault.kind == "status":
        return plain_status(fault.number(500), request)
    if fault.kind == "limited":
        return _limited(fault, request, quota)
    if fault.kind == "session-lost":
        return error(400, UNCACHED, request)
    if fault.kind in _ERRORS:
        return error(400, _ERRORS[fault.kind], request)
    if fault.kind == "json-error-200":
        return error(200, "Internal error", request)
    return text_reply(200, _HTML, "text/html")


def _limited(fault: Fault, request: str, quota: Quota) -> Reply:
    if fault.argument == "window":
        wait = 3600 if fault.retry_after is None else fault.retry_after
        return replace(quota, used=quota.per_window).over_window(wait, request)
    if fault.argument == "concurrency":
        wait = 10 if fault.retry_after is None else fault.retry_after
        return replace(quota, running=quota.concurrent).over_concurrency(wait, request)
    return quota.shedding()


def changed_page(fault: Fault, page: Page, engage: Engage) -> Page:
    """The page as the fault tells it; the page itself when the fault is of another sort."""
    change = _PAGES.get(fault.kind)
    return change(fault, page, engage) if change else page


def changed_body(fault: Fault, reply: Reply) -> Reply:
    """The reply with its body cut, at the byte or at a line end, and perhaps a last line; framing stays correct."""
    if fault.kind not in _LINES:
        return reply
    body = b"".join(plain_blocks(reply.pieces))
    part = body[: int(len(body) * fault.keep)]
    if fault.kind != "cut":
        part = part[: part.rfind(b"\n") + 1]
    last = fault.body if fault.body is not None else _LAST_LINES.get(fault.kind)
    if last is not None:
        part += last.encode() + b"\n"
    return replace(reply, pieces=(piece_of(part),))


def _no_results(_: Fault, page: Page, __: Engage) -> Page:
    return replace(page, results=None)


def _rows_without_id(fault: Fault, page: Page, _: Engage) -> Page:
    rows, n = _own(page), fault.number(1)
    return page.with_rows(['{"$properties":' + row.split(',"$properties":', 1)[1] for row in rows[:n]] + rows[n:])


def _rows_not_objects(fault: Fault, page: Page, _: Engage) -> Page:
    rows, n = _own(page), fault.number(3)
    return page.with_rows([("7", '"text"', "null")[k % 3] for k in range(min(n, len(rows)))] + rows[n:])


def _empty_page(_: Fault, page: Page, __: Engage) -> Page:
    return page.with_rows([])


def _short_page(fault: Fault, page: Page, _: Engage) -> Page:
    rows = _own(page)
    return page.with_rows(rows[: max(0, len(rows) - fault.number((len(rows) + 1) // 2))])


def _repeated_page(fault: Fault, page: Page, engage: Engage) -> Page:
    return replace(page, results=engage.results(page.session, fault.number(0), page.page_size))


def _duplicate_rows(fault: Fault, page: Page, _: Engage) -> Page:
    before = list(page.session.rows(page.page - 1, page.page_size)) if page.page else []
    return page.with_rows(before[-fault.number(3) :] + _own(page))


def _total(fault: Fault, page: Page, _: Engage) -> Page:
    true = len(page.session.view)
    told = {"missing": None, "growing": true + 1000 * page.page + 1, "shrinking": max(0, true - 1000 * page.page - 1)}
    return replace(page, total=told[fault.argument] if fault.argument in told else fault.number(true))


def _page_size(fault: Fault, page: Page, engage: Engage) -> Page:
    size = fault.number(500)
    return replace(page, page_size=size, results=engage.results(page.session, page.page, size))


def _own(page: Page) -> list[str]:
    return list(page.session.rows(page.page, page.page_size))


_PAGES: dict[str, Callable[[Fault, Page, Engage], Page]] = {
    "no-results": _no_results,
    "rows-without-id": _rows_without_id,
    "rows-not-objects": _rows_not_objects,
    "empty-page": _empty_page,
    "short-page": _short_page,
    "repeated-page": _repeated_page,
    "duplicate-rows": _duplicate_rows,
    "total": _total,
    "page-size": _page_size,
}
_KINDS = frozenset({"delay", *_WIRE, *_LINES, *_WHOLE, *_PAGES})


def script(text: str | bytes) -> list[Fault]:
    """The faults of a JSON list; ValueError when it is not one."""
    data = json.loads(text)
    if not isinstance(data, list) or not all(isinstance(item, dict) for item in data):
        raise ValueError("the fault script must be a JSON list of objects")
    return [Fault.from_dict(item) for item in data]
