"""Faults on request: a script, as data, of what goes wrong with which request.

Belongs here: which faults exist, and which of them meets a request. Not here: what each does to an answer (effects.py)
or on the wire (wire.py), limits that really count (limits.py). The first fault of the script that matches a request,
and is not used up, happens to it.

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
    bad-length           Content-Length: -1, the body cut, then a close                      keep
    two-lengths          the true answer, with two Content-Length headers that differ
    no-final-chunk       chunked, closed before the last chunk                              keep
    bad-chunk            chunked, a chunk of negative size after the part that arrives      keep
    no-chunks            it says that it is chunked, and is not
    huge-chunk:200       a chunk of size -1, and 200 MB
    gzip-cut             a gzip stream cut inside correct framing                           keep
    no-framing           neither length nor chunks: cut, and closed as if complete          keep (1.0: whole)
    trickle              the true answer, its body spread over `seconds`
    trickle-head         the true answer, its status line and headers spread over `seconds`
    huge-page:200        200 MB that pack well: a page of one profile
    huge-line:200        the same: an export of one event
    huge-export:200      the same: an export of usual events
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
    repeated-rows        the same, in place of its own first n                              n (3)
    total:missing        no `total` (also total:growing, total:shrinking: by page, total:123)
    page-size:250        the page holds 250 rows per page and says so, whatever was asked
    session:null         `session_id` is null (also session:missing, session:empty, session:long, session:other: another
                         one than that of the page, session:number: the same, as a number)
    page-number:7        `page` is 7
    project:7            `project_id` is 7 (a true page has none)
    only-results         the page has its rows, and no other member
"""

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from mixpanel_assets.sandbox.wire import Damage

ENDPOINTS = ("engage", "engage/properties", "cohorts/list", "annotations", "schemas", "export")
WIRE = frozenset({"drop", "reset", "short-body", "bad-length", "no-final-chunk", "bad-chunk"}) | {
    *("no-chunks", "huge-chunk"),
    *("gzip-cut", "no-framing", "trickle", "trickle-head", "two-lengths"),
    *("huge-page", "huge-line", "huge-export"),
}
LINES = frozenset({"cut", "line-cut", "terminated-early", "error-line"})
ERRORS = frozenset({"timeout-error", "auth-error", "date-error", "session-lost"})
WHOLE = ERRORS | {"status", "limited", "json-error-200", "not-json"}
PAGES = frozenset({"no-results", "rows-without-id", "rows-not-objects", "empty-page", "short-page"}) | {
    *("repeated-page", "duplicate-rows", "repeated-rows", "total", "page-size", "session", "page-number", "project"),
    "only-results",
}
KINDS = WIRE | LINES | WHOLE | PAGES | {"delay"}
_WORDS = {
    "limited": {"window", "concurrency", "shedding"},
    "total": {"missing", "growing", "shrinking"},
    "session": {"null", "missing", "empty", "long", "other", "number"},
}
_NEEDS_ARGUMENT = frozenset({"status", "limited", "total", "page-size", "session", "page-number", "project"}) | {
    *("huge-page", "huge-line", "huge-export", "huge-chunk"),
}


@dataclass(frozen=True)
class Fault:
    """One line of the script. It matches requests of its endpoint (one of ENDPOINTS) with its page or from_date
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
        if self.endpoint not in ENDPOINTS:
            raise ValueError(f"endpoint must be one of {', '.join(ENDPOINTS)}, not {self.endpoint!r}")
        if self.kind not in KINDS:
            raise ValueError(f"unknown fault {self.do!r}; there are: {', '.join(sorted(KINDS))}")
        if not self._argument_is_good():
            raise ValueError(f"{self.do!r} does not say what it needs: see the table in faults.py")
        if self.endpoint != "engage" and self.kind in PAGES:
            raise ValueError(f"{self.do!r} is a fault of pages, which {self.endpoint} has not")

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Fault":
        """ValueError when a key or a kind is unknown."""
        if unknown := set(data) - {f.name for f in fields(cls)}:
            raise ValueError(f"a fault has no {', '.join(sorted(unknown))}")
        if missing := {"endpoint", "do"} - set(data):
            raise ValueError(
                f"a fault needs {' and '.join(sorted(missing))}; endpoint is one of {', '.join(ENDPOINTS)}, do one of "
                f"{', '.join(sorted(KINDS))}"
            )
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
        return Damage(self.kind, self.keep, self.seconds, self.number(0)) if self.kind in WIRE else None

    def _argument_is_good(self) -> bool:
        if not self.argument:
            return self.kind not in _NEEDS_ARGUMENT
        words = _WORDS.get(self.kind, set())
        return self.argument in words or (self.argument.isdecimal() and self.kind not in ("limited", "session"))

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


def script(text: str | bytes) -> list[Fault]:
    """The faults of a JSON list; ValueError when it is not one."""
    data = json.loads(text)
    if not isinstance(data, list) or not all(isinstance(item, dict) for item in data):
        raise ValueError("the fault script must be a JSON list of objects")
    return [Fault.from_dict(item) for item in data]
