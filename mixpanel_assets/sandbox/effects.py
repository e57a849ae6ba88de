"""What each fault does to an answer. The table of faults is in faults.py.

Belongs here: replies instead of the true one, pages that lie, bodies that stop. Not here: when (faults.py), the wire
(wire.py). Each fault is one small function.
"""

import json
from collections.abc import Callable
from dataclasses import replace

from mixpanel_assets.sandbox.bodies import piece_of, plain_blocks
from mixpanel_assets.sandbox.engage import Engage, Page
from mixpanel_assets.sandbox.faults import LINES, WHOLE, Fault
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

_ERRORS = {
    "timeout-error": "Timeout Error.",
    "auth-error": UNAUTHENTICATED,
    "date-error": FUTURE,
    "session-lost": UNCACHED,
}
_LAST_LINES = {"terminated-early": "terminated early", "error-line": '{"error":"Internal error, export aborted"}'}
_HTML = "<html><body>Please log in</body></html>"


def instead(fault: Fault, request: str, quota: Quota) -> Reply | None:
    """The reply that a fault gives instead of the true one; None when it changes the true one, or only the wire."""
    if fault.kind not in WHOLE:
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
    if fault.kind not in LINES:
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
    return page.with_rows(_last_before(page, fault.number(3)) + _own(page))


def _repeated_rows(fault: Fault, page: Page, _: Engage) -> Page:
    repeated = _last_before(page, fault.number(3))
    return page.with_rows(repeated + _own(page)[len(repeated) :])


def _total(fault: Fault, page: Page, _: Engage) -> Page:
    true = len(page.session.view)
    told = {"missing": None, "growing": true + 1000 * page.page + 1, "shrinking": max(0, true - 1000 * page.page - 1)}
    return replace(page, total=told[fault.argument] if fault.argument in told else fault.number(true))


def _page_size(fault: Fault, page: Page, engage: Engage) -> Page:
    size = fault.number(500)
    return replace(page, page_size=size, results=engage.results(page.session, page.page, size))


def _session(fault: Fault, page: Page, _: Engage) -> Page:
    session_id = page.session.session_id
    told = {
        "null": "null",
        "missing": None,
        "empty": '""',
        "long": json.dumps("s" * 1_000_000),
        "other": json.dumps(f"{session_id}0"),
        "number": page.session.number,
    }
    return replace(page, session_id=told[fault.argument])


def _page_number(fault: Fault, page: Page, _: Engage) -> Page:
    return replace(page, told_page=fault.number(0))


def _project(fault: Fault, page: Page, _: Engage) -> Page:
    return replace(page, project_id=fault.number(0))


def _only_results(_: Fault, page: Page, __: Engage) -> Page:
    return replace(page, only_results=True)


def _last_before(page: Page, n: int) -> list[str]:
    return list(page.session.rows(page.page - 1, page.page_size))[-n:] if page.page else []


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
    "repeated-rows": _repeated_rows,
    "total": _total,
    "page-size": _page_size,
    "session": _session,
    "page-number": _page_number,
    "project": _project,
    "only-results": _only_results,
}
