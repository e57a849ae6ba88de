"""What an endpoint answers, before it is framed: the reply, and Mixpanel's error bodies and 429 headers.

Belongs here: status, headers and words of every answer. Not here: when to give them (limits.py, engage.py, export.py,
faults.py), how they travel (wire.py).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from mixpanel_assets.sandbox.bodies import Piece, piece_of

JSON = "application/json"
UNCACHED = "request for page in uncached query for params"
UNAUTHENTICATED = "Unable to authenticate request"
NO_WORKSPACE = "workspace_id is required for this project"
FUTURE = "to_date cannot be later than today"
TOO_OLD = "Date range exceeds %d days into the past"
_MORE = "For more information, consult https://developer.mixpanel.com/reference/rate-limits"
_HTML = "<html><head><title>%s</title></head><body><center><h1>%s</h1></center><hr>openresty</body></html>"
_PLAN = "Your plan does not allow API calls. Upgrade at mixpanel.com/pricing"
_STATUS_WORDS = {
    400: "Bad request",
    401: "Invalid or expired service account credentials",
    402: _PLAN,
    403: "User does not have permission to perform this action",
    404: "Not found",
    500: "Internal server error",
}


@dataclass(frozen=True)
class Reply:
    """A status with a body of pieces; `rows` is what the journal counts."""

    status: int
    pieces: tuple[Piece, ...]
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    chunked: bool = False
    rows: int = 0


class Refused(Exception):
    """Raised where a request cannot be served; carries the reply."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


def text_reply(status: int, body: str, content_type: str = JSON, headers: Mapping[str, str] | None = None) -> Reply:
    """A reply with a text as its body; bytes that are no UTF-8 come as Python's surrogate escapes."""
    return Reply(status, (piece_of(body.encode(errors="surrogateescape")),), content_type, headers or {})


def error(status: int, words: str, request: str) -> Reply:
    """Mixpanel's usual error body; `request` is the path and query of the request."""
    return text_reply(status, json.dumps({"request": request, "error": words}))


def plain_status(status: int, request: str) -> Reply:
    """The usual body of a status: an HTML page from the proxy for 502, 503 and 504, JSON for the rest."""
    if status in (502, 503, 504):
        title = {502: "502 Bad Gateway", 503: "503 Service Temporarily Unavailable", 504: "504 Gateway Time-out"}[
            status
        ]
        return text_reply(status, _HTML % (title, title), "text/html")
    return error(status, _STATUS_WORDS.get(status, f"Status {status}"), request)


@dataclass(frozen=True)
class Quota:
    """One pool's figures at one moment, as its 429s tell them. Times in whole seconds."""

    project_id: str
    per_window: int
    window_seconds: int
    used: int
    concurrent: int
    running: int

    @property
    def policy(self) -> str:
        return (
            f'"project";q={self.per_window};w={self.window_seconds}, '
            f'"project-concurrency";q={self.concurrent};qu="concurrent-requests"'
        )

    def over_window(self, wait: int, request: str) -> Reply:
        words = f"{self.used + 1}/{self.per_window} queries running in the last hour"
        free = max(0, self.concurrent - self.running)
        state = f'"project";r=0;t={wait}, "project-concurrency";r={free}'
        return self._over(f"This request exceeded the rate limit ({words}).", state, wait, request)

    def over_concurrency(self, wait: int, request: str) -> Reply:
        words = f"{self.running + 1}/{self.concurrent} queries running concurrently"
        left = max(0, self.per_window - self.used)
        state = f'"project";r={left}, "project-concurrency";r=0;t={wait}'
        return self._over(f"This request exceeded the concurrency limit ({words}).", state, wait, request)

    def shedding(self) -> Reply:
        words = f"Query rate limit exceeded for project_id: {self.project_id} {_MORE}"
        return text_reply(429, json.dumps({"error": words}))

    def _over(self, why: str, state: str, wait: int, request: str) -> Reply:
        words = f"Query rate limit exceeded for project_id: {self.project_id}. {why} {_MORE}"
        headers = {"RateLimit-Policy": self.policy, "RateLimit": state, "Retry-After": str(wait)}
        return text_reply(429, json.dumps({"request": request, "error": words}), JSON, headers)


def too_many_exports(seconds: int | None = None) -> Reply:
    headers = {} if seconds is None else {"Retry-After": str(seconds)}
    return text_reply(429, '{"error":"too many export requests in progress for this project"}', JSON, headers)
