"""The sandbox that people hold in their hands: a stand-in Mixpanel.

Belongs here: authentication, the order in which limits, faults and answers happen, control over HTTP. Not here: what
an endpoint answers (engage.py, export.py), limits (limits.py), connections (server.py).

    GET  /sandbox/journal           everything in the journal, as JSON
    POST /sandbox/faults            a JSON list replaces the fault script
    POST /sandbox/expire-sessions   every open session is lost
    POST /sandbox/clear             empties the journal and the counted windows
"""

import base64
import hmac
import json
import re
import signal
import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType

from mixpanel_assets.sandbox.bodies import PieceCache
from mixpanel_assets.sandbox.effects import changed_body, changed_page, instead
from mixpanel_assets.sandbox.engage import Engage, Paging
from mixpanel_assets.sandbox.export import Export
from mixpanel_assets.sandbox.faults import Fault, FaultScript, script
from mixpanel_assets.sandbox.journal import Arrival, Journal, Request
from mixpanel_assets.sandbox.limits import Limits, RateLimiter
from mixpanel_assets.sandbox.lists import Lists
from mixpanel_assets.sandbox.population import Population, View, today
from mixpanel_assets.sandbox.replies import (
    NO_WORKSPACE,
    UNAUTHENTICATED,
    Refused,
    Reply,
    error,
    plain_status,
    text_reply,
)
from mixpanel_assets.sandbox.server import Call, Server

_ROUTES = {
    **dict.fromkeys(("/api/query/engage", "/api/2.0/engage"), "engage"),
    **dict.fromkeys(("/api/query/engage/properties", "/api/2.0/engage/properties"), "engage/properties"),
    **dict.fromkeys(("/api/query/cohorts/list", "/api/2.0/cohorts/list"), "cohorts/list"),
    "/api/2.0/export": "export",
}
_APP_ROUTE = re.compile(r"/api/app/projects/(\d+)/(annotations|schemas)(?:/(event|profile))?")


class Sandbox:
    """A stand-in Mixpanel: `with Sandbox(Population(...)) as sandbox:` serves on 127.0.0.1 until the block ends.

    latency: seconds before every answer. page_size, page_size_cap, ignore_page_size, total_on_all_pages: how engage
    pages. chunked: exports travel in chunks, else with a Content-Length. port 0: any free one. today: the project's
    present day for "to_date cannot be later than today". history_days: how far back the project's plan serves events
    (None: all); may be changed at any time. workspace_id: the only Data View that may be read, as in a project where
    each request has to name one. `errors` lists tracebacks of the sandbox's own mistakes.
    """

    def __init__(
        self,
        population: Population | None = None,
        *,
        latency: float = 0.0,
        page_size: int = 1000,
        page_size_cap: int = 50_000,
        ignore_page_size: bool = False,
        total_on_all_pages: bool = False,
        chunked: bool = True,
        faults: Iterable[Fault] = (),
        limits: Limits | None = None,
        port: int = 0,
        username: str = "sandbox.service-account",
        secret: str = "sandbox-secret",
        project_id: str = "1234567",
        today: Callable[[], str] = today,
        history_days: int | None = None,
        workspace_id: str | None = None,
    ) -> None:
        self.population = Population() if population is None else population
        self.latency, self.username, self.project_id = latency, username, project_id
        self.journal, self.errors = Journal(), list[str]()
        self._port, self._secret, self._workspace_id = port, secret, workspace_id
        self._cache = PieceCache()
        self._script, self._limiter = FaultScript(list(faults)), RateLimiter(limits or Limits(), project_id)
        paging = Paging(page_size, page_size_cap, ignore_page_size, total_on_all_pages)
        self._engage = Engage(self.population, self._cache, paging)
        self.lists = Lists(self.population, project_id)
        self._export = Export(self.population, self._cache, today, chunked, history_days)
        self._server: Server | None = None

    def __enter__(self) -> "Sandbox":
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.stop()

    def start(self) -> None:
        """Listen, and answer from a background thread."""
        self._server = Server(self, self._port)
        threading.Thread(target=self._server.serve_forever, args=(0.02,), name="sandbox", daemon=True).start()

    def stop(self) -> None:
        """Stop answering, close every connection, delete the temporary files."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        self._cache.close()

    def serve_forever(self) -> None:
        """Answer in the foreground until Ctrl-C or SIGTERM; starts the sandbox when it is not running. Main thread."""
        if self._server is None:
            self.start()
        # The default would end the process here and now, and leave the temporary files behind.
        before = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            while True:
                time.sleep(0.5)  # not one endless wait: on Windows Ctrl-C would not end that
        except KeyboardInterrupt:
            self.stop()
        finally:
            signal.signal(signal.SIGTERM, before)

    @property
    def history_days(self) -> int | None:
        """How far back the project's plan serves events; None: all."""
        return self._export.history_days

    @history_days.setter
    def history_days(self, days: int | None) -> None:
        self._export.history_days = days

    @property
    def connections(self) -> int:
        """Connections accepted so far."""
        return self._server.accepted if self._server else 0

    @property
    def url(self) -> str:
        if self._server is None:
            raise RuntimeError("the sandbox is not running: use it in a `with` statement, or call start()")
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables that point this project at the sandbox."""
        return {
            "MP_USERNAME": self.username,
            "MP_SECRET": self._secret,
            "MP_PROJECT_ID": self.project_id,
            "MP_REGION": "us",
            "MP_QUERY_URL": f"{self.url}/api/query",
            "MP_EXPORT_URL": f"{self.url}/api/2.0",
            "MP_APP_URL": f"{self.url}/api/app",
        }

    @property
    def faults(self) -> list[Fault]:
        """The fault script: change it in place, or set another one."""
        return self._script.faults

    @faults.setter
    def faults(self, faults: Iterable[Fault]) -> None:
        self._script.faults[:] = faults

    @property
    def limits(self) -> Limits:
        return self._limiter.limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        self._limiter.limits = limits

    def warm(self, from_day: str | None = None, to_day: str | None = None, *, milliseconds: bool = False) -> None:
        """Make and compress all pages, and the days of a range (inclusive; in the unit that will be asked for), so
        that a benchmark measures the client and not this."""
        self._engage.warm()
        if from_day is not None:
            self._export.warm(from_day, to_day or from_day, milliseconds=milliseconds)

    def served(self, session_id: str) -> View:
        """The frozen truth that a session, open or lost, serves; KeyError when there was none of that name."""
        return self._engage.served(session_id)

    def expire_sessions(self) -> None:
        """Every open session is lost."""
        self._engage.forget_all()

    def clear(self) -> None:
        """Empty the journal and the counted windows; sessions stay open."""
        self.journal.clear()
        self._limiter.clear()

    # What the server asks

    def endpoint(self, path: str) -> str | None:
        app = _APP_ROUTE.fullmatch(path.removesuffix("/"))
        if app is not None and app[1] == self.project_id:
            return app[2]
        return _ROUTES.get(path.removesuffix("/"))

    def arrive(self, endpoint: str) -> Arrival:
        return self.journal.arrive(endpoint)

    def answer(self, call: Call) -> Reply:
        """The order of things: credentials, limits, latency, faults, the true answer."""
        self._authenticate(call)
        counted = call.endpoint == "export" or not call.params.get("session_id") or self.limits.count_session_pages
        self._limiter.enter(call.endpoint, call.request, counted=counted)
        call.admitted = counted
        time.sleep(self.latency)
        fault = self._script.next(call.endpoint, call.page, call.params.get("from_date"))
        if fault is None:
            return self._true_reply(call, None)
        call.fault, call.damage = fault.do, fault.damage
        time.sleep(0 if fault.kind in ("trickle", "trickle-head") else fault.seconds)
        if fault.kind == "session-lost":
            self._engage.forget(call.params.get("session_id", ""))
        reply = instead(fault, call.request, self._limiter.quota(call.endpoint)) or self._true_reply(call, fault)
        return changed_body(fault, reply)

    def left(self, call: Call, status: int, rows: int, size: int) -> None:
        """The answer is about to be complete."""
        if call.admitted is not None:
            self._limiter.leave(call.endpoint, status, counted=call.admitted)
        arrival, params = call.arrival, call.params
        self.journal.leave(
            Request(
                arrival.number, call.endpoint, call.method, params, call.page,
                call.session_id or params.get("session_id"), params.get("from_date"), params.get("to_date"),
                arrival.started, time.monotonic(), status, rows, size, call.fault, arrival.in_flight,
            )
        )  # fmt: skip

    def control(self, method: str, path: str, body: bytes) -> Reply:
        """The /sandbox/ paths: for tests in other processes; no credentials, no journal."""
        answer: dict[str, object] = {"status": "ok"}
        try:
            if (method, path) == ("GET", "/sandbox/journal"):
                answer = {**self.journal.to_dict(), "errors": self.errors}
            elif (method, path) == ("POST", "/sandbox/faults"):
                self.faults = script(body)
            elif (method, path) == ("POST", "/sandbox/expire-sessions"):
                self.expire_sessions()
            elif (method, path) == ("POST", "/sandbox/clear"):
                self.clear()
            else:
                return plain_status(404, path)
        except (ValueError, TypeError) as problem:
            return error(400, str(problem), path)
        return text_reply(200, json.dumps(answer))

    def _true_reply(self, call: Call, fault: Fault | None) -> Reply:
        if call.endpoint == "export":
            return self._export.reply(call.params, call.request)
        if call.endpoint in ("cohorts/list", "annotations", "schemas"):
            kind = call.request.partition("?")[0].rpartition("/")[2]
            chosen = {"entity_type": kind} if call.endpoint == "schemas" and kind != "schemas" else {}
            return self.lists.reply(call.endpoint, {**call.params, **chosen})
        if call.endpoint == "engage/properties":
            return self._engage.properties(call.params, call.request)
        page = self._engage.page(call.params, call.request)
        call.session_id = page.session.session_id
        return (changed_page(fault, page, self._engage) if fault else page).reply()

    def _authenticate(self, call: Call) -> None:
        expected = base64.b64encode(f"{self.username}:{self._secret}".encode()).decode()
        kind, _, given = call.authorization.partition(" ")
        if kind.lower() != "basic" or not hmac.compare_digest(given.strip().encode(), expected.encode()):
            raise Refused(plain_status(401, call.request))
        if call.params.get("project_id") != self.project_id:
            raise Refused(error(400, UNAUTHENTICATED, call.request))
        if self._workspace_id is not None and call.params.get("workspace_id") != self._workspace_id:
            raise Refused(error(400, NO_WORKSPACE, call.request))
