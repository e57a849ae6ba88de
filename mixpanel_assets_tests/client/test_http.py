"""One request and its errors, as a table: status x headers x body -> which error, how many attempts, how long a wait.

Real requests on loopback; only the waits are not slept.
"""

import base64
import errno
import io
import logging
import re
import socket
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from mixpanel_assets.client.answer import BrokenAnswerError
from mixpanel_assets.client.client import MixpanelClient
from mixpanel_assets.client.http import BadRequestError, ServerTimeoutError, Transport, UnreachableError
from mixpanel_assets.client.project import Project
from mixpanel_assets.client.request_limits import RequestLimits
from mixpanel_assets.client.retry import Retrier, RetryPolicy
from mixpanel_assets.errors import (
    AuthenticationError,
    FatalError,
    MixpanelError,
    PlanError,
    QuotaError,
    RestartError,
    TransientError,
)
from mixpanel_assets.sandbox import Fault, Limits, Population, Sandbox
from mixpanel_assets.streams.events.fetch import save_export
from mixpanel_assets.streams.events.query import EventsQuery
from mixpanel_assets.streams.profiles.fetch import fetch_page
from mixpanel_assets.streams.profiles.query import ProfileQuery
from mixpanel_assets.streams.profiles.wire import MalformedPageError, page_request
from mixpanel_assets.streams.snapshot.page import Page
from mixpanel_assets_tests.tls import CERTIFICATE, ConnectProxy, sandbox_behind_tls

pytestmark = pytest.mark.unit

SECRET = "s3cret-marker"
# The first wait is 2 to 3 s, the next 4 to 5.
POLICY = RetryPolicy(max_attempts=3, base_seconds=2.0, max_wait_seconds=120.0)


class NoSleep(threading.Event):
    """A stop that nobody asks for, whose waits are noted instead of slept."""

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.waits.append(timeout or 0.0)
        return False


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(Population(30), page_size=10, secret=SECRET, limits=Limits(enforce=False)) as sandbox:
        yield sandbox


def project(sandbox: Sandbox) -> Project:
    query, export, app = (sandbox.environment[f"MP_{api}_URL"] for api in ("QUERY", "EXPORT", "APP"))
    return Project(sandbox.username, SECRET, sandbox.project_id, query, export, app)


@dataclass
class Asked:
    """What came of asking for one page."""

    page: Page | None
    error: MixpanelError | None
    retrier: Retrier
    waits: list[float]


def ask(sandbox: Sandbox, *faults: Fault, page: int = 0, of: Project | None = None, **policy: Any) -> Asked:
    """Ask for a page in a session of its own, with the faults that come after page 0."""
    stop = NoSleep()
    client = MixpanelClient(of or project(sandbox), policy=replace(POLICY, **policy), stop=stop)
    sandbox.faults, sandbox.limits = [], Limits(enforce=False)
    session = fetch_page(client, ProfileQuery(), 0, None, client.retrier(_log())).session_id if page else None
    sandbox.faults = list(faults)
    retrier = client.retrier(_log())
    try:
        return Asked(fetch_page(client, ProfileQuery(), page, session, retrier), None, retrier, stop.waits)
    except MixpanelError as error:
        return Asked(None, error, retrier, stop.waits)
    finally:
        client.close()


def _log() -> logging.Logger:
    return logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """`wait`: the first wait in seconds, at least and at most; None when there is none."""

    do: str
    error: type[MixpanelError]
    attempts: int
    wait: tuple[float, float] | None
    says: str = ""
    page: int = 0
    more: dict[str, Any] = field(default_factory=dict)


OWN = (2.0, 3.0)
TABLE = [
    Row("status:500", TransientError, 3, OWN, "page 0: Mixpanel answered 500: Internal server error"),
    Row("status:502", TransientError, 3, OWN, "502 Bad Gateway"),
    Row("status:503", TransientError, 3, OWN),
    Row("status:503", TransientError, 3, (7.0, 8.0), more={"retry_after": 7}),
    Row("status:503", TransientError, 3, OWN, more={"retry_after": 1}),
    Row("status:503", TransientError, 1, None, more={"retry_after": 121}),
    Row("status:503", TransientError, 3, OWN, more={"headers": {"Retry-After": "Wed, 01 Jan 2020 00:00:00 GMT"}}),
    Row("status:503", TransientError, 1, None, more={"headers": {"Retry-After": "Wed, 01 Jan 2200 00:00:00 GMT"}}),
    Row("status:503", TransientError, 3, OWN, more={"headers": {"Retry-After": "soon"}}),
    Row("status:503", TransientError, 3, OWN, more={"headers": {"Retry-After": "-5"}}),
    Row("status:503", TransientError, 3, OWN, more={"headers": {"Retry-After": "Wed, 01 Jan 99999999999 00:00 GMT"}}),
    Row("status:503", TransientError, 3, OWN, more={"headers": {"RateLimit-Policy": f'"project";q={2**70};w=3600'}}),
    Row("status:503", TransientError, 3, OWN, more={"headers": {"RateLimit-Policy": f'"project";q=60;w={2**70}'}}),
    Row("status:503", TransientError, 3, OWN, more={"headers": {"RateLimit-Policy": '"project";q=\xb2;w=3600'}}),
    Row("status:504", ServerTimeoutError, 3, OWN),
    Row("status:408", TransientError, 3, OWN),
    Row("timeout-error", ServerTimeoutError, 3, OWN, "Mixpanel ran out of time"),
    Row("limited:concurrency", TransientError, 3, (10.0, 11.0), "too many requests in flight"),
    Row("limited:shedding", TransientError, 3, OWN),
    Row("status:429", TransientError, 3, OWN, more={"body": "slow down"}),
    Row("limited:window", QuotaError, 1, None, "the hourly quota of the project is spent, room again within the hour"),
    Row("limited:window", QuotaError, 1, None, "room again within the hour", more={"retry_after": 10**18}),
    Row("limited:window", QuotaError, 1, None, "room again in 1 s", more={"retry_after": 1}),
    Row(
        "status:429", QuotaError, 1, None, "within the hour",
        more={"body": "1/5 queries running concurrently and 61/60 queries running in the last hour"},
    ),
    Row("status:401", AuthenticationError, 1, None, "check MP_USERNAME, MP_SECRET, MP_PROJECT_ID and MP_REGION"),
    Row("auth-error", AuthenticationError, 1, None, r"refused the credentials \(400\)"),
    Row("status:402", PlanError, 1, None, r"no Query API \(402\)"),
    Row("status:403", FatalError, 1, None, "User does not have permission"),
    Row("status:404", FatalError, 1, None),
    Row("status:412", FatalError, 1, None),
    Row("status:302", FatalError, 1, None, "redirects", more={"headers": {"Location": "https://example.com/"}}),
    Row("status:302", FatalError, 1, None, "redirects", more={"headers": {"Location": "http://[not-an-address/"}}),
    Row("status:418", FatalError, 1, None),
    Row("status:206", FatalError, 1, None, r"206 instead of 200: check [\w *]+$", more={"body": "a@example.com"}),
    Row("status:400", BadRequestError, 1, None, "check MP_PROJECT_ID: Bad request"),
    Row("status:400", RestartError, 1, None, "taken for lost", page=1),
    Row("session-lost", RestartError, 1, None, "the session is lost", page=1),
    Row("not-json", MalformedPageError, 3, OWN),
    Row("json-error-200", TransientError, 3, OWN, "answered 200 with an error: Internal error"),
    Row("drop", TransientError, 3, OWN, "the connection broke off"),
    Row("reset", TransientError, 3, OWN, "the connection broke off"),
    Row("short-body", TransientError, 3, OWN, "the connection broke off"),
    Row("no-final-chunk", TransientError, 3, OWN, "the connection broke off"),
    Row("bad-length", BrokenAnswerError, 3, OWN),
    Row("bad-chunk", TransientError, 3, OWN, "page 0: the connection broke off"),
    Row("gzip-cut", TransientError, 3, OWN),
    Row("no-framing", BrokenAnswerError, 3, OWN),
    Row("two-lengths", TransientError, 3, OWN, "page 0: the answer is broken"),
]  # fmt: skip


@pytest.mark.parametrize("row", TABLE, ids=[f"{n} {row.do}" for n, row in enumerate(TABLE)])
def test_error_table(sandbox: Sandbox, row: Row) -> None:
    """Seen red: the hard ones when every MixpanelError is retried, those with a wait when `_asked` says 0, HTTP dates
    without _seconds_until, those of 400 when they are all a BadRequestError.
    """
    sandbox.clear()
    asked = ask(sandbox, Fault("engage", row.do, row.page, times=None, **row.more), page=row.page)
    assert type(asked.error) is row.error or (row.error is TransientError and isinstance(asked.error, TransientError))
    assert asked.error is not None
    assert asked.error.args[0].count("\n") == 0
    # Arrivals: a request whose answer is broken off may be entered in the journal after the client has given up.
    assert len(sandbox.journal.starts("engage")) >= row.attempts + (row.page > 0)
    assert len(asked.retrier.attempts) == row.attempts
    assert re.search(row.says, str(asked.error))
    if row.wait is None:
        assert asked.waits == []
    else:
        assert row.wait[0] <= asked.waits[0] <= row.wait[1]
        assert len(asked.waits) == row.attempts - 1


EVERYTHING = EventsQuery()


@dataclass(frozen=True)
class Advice:
    """A refusal, and what is said to check."""

    status: int
    body: str
    check: str
    query: ProfileQuery | EventsQuery = EVERYTHING


DAYS_AND_ZONE = "the days asked for, MP_TIMEZONE"
ADVICE = [
    Advice(400, '{"error":"to_date must be after from_date"}', DAYS_AND_ZONE),
    Advice(400, "Invalid value for fromDate", DAYS_AND_ZONE),
    Advice(400, '{"error":"workspace_id is required for this project"}', "MP_WORKSPACE_ID"),
    Advice(400, '{"error":"workspace_id is required"}', "MP_WORKSPACE_ID", ProfileQuery(where="true")),
    Advice(400, '{"error":"Invalid project_id"}', "MP_PROJECT_ID", EventsQuery(("A",), "true")),
    Advice(400, "project_id 7 has no workspace_id 8", "MP_PROJECT_ID and MP_WORKSPACE_ID"),
    Advice(400, "event must be a list", "events", EventsQuery(("A",), "true")),
    Advice(400, 'cannot parse where: properties["event"] = 1', "where", EventsQuery(where='properties["event"] = 1')),
    Advice(400, "bad request: /export?from_date=1&event=2&where=3: bad selector", "where", EventsQuery(where="3")),
    Advice(414, "URI Too Long", f"{DAYS_AND_ZONE} and events", EventsQuery(("A",))),
    Advice(422, "Unprocessable", f"{DAYS_AND_ZONE}, events and where", EventsQuery(("A",), "true")),
    Advice(400, "no such cohort", "cohort_id", ProfileQuery(cohort_id=7, where="true")),
    Advice(400, "page_size too large", "page_size", ProfileQuery(page_size=10**6, where="true")),
    Advice(400, "unknown", "where and page_size", ProfileQuery(page_size=10, where="true")),
    Advice(400, "group not found", "groups", ProfileQuery(data_group_id="-5")),
    Advice(402, "Upgrade", r"no raw export \(402\), so events cannot be fetched"),
    Advice(402, "Upgrade", r"no Query API \(402\), so profiles cannot be fetched, events can", ProfileQuery()),
    Advice(403, "no permission", "what MP_USERNAME may read in the project"),
    Advice(404, "not found", r"MP_REGION and MP_\*_URL", ProfileQuery()),
]  # fmt: skip


@pytest.mark.parametrize("advice", ADVICE, ids=[f"{each.status} {each.body[:40]}" for each in ADVICE])
def test_advice_fits_the_stream_and_the_parameter(sandbox: Sandbox, advice: Advice) -> None:
    """Red with one advice for all: "check its filters" for a date, and no profiles for an export."""
    sandbox.clear()
    endpoint = "engage" if isinstance(advice.query, ProfileQuery) else "export"
    sandbox.faults = [Fault(endpoint, f"status:{advice.status}", body=advice.body, times=None)]
    client = MixpanelClient(project(sandbox))
    query = advice.query

    def ask_once() -> None:
        if isinstance(query, ProfileQuery):
            fetch_page(client, query, 0, None, client.retrier(_log()))
        else:
            save_export(client, query, "2026-01-01", "2026-01-02", io.BytesIO())

    with pytest.raises(FatalError, match=rf"(check|plan has) {advice.check}: "):
        ask_once()
    client.close()


@pytest.mark.parametrize("row", [row for row in TABLE if row.attempts > 1], ids=lambda row: row.do)
def test_what_passes_heals(sandbox: Sandbox, row: Row) -> None:
    asked = ask(sandbox, Fault("engage", row.do, row.page, times=1, **row.more), page=row.page)
    assert asked.page is not None, asked.error
    assert asked.page.served == 10
    first, second = asked.retrier.attempts
    assert (first.error is None, second.error is None) == (False, True)
    assert first.wait_seconds == pytest.approx(asked.waits[0], abs=0.001)


class TestUnreachable:
    @pytest.fixture
    def nobody(self, sandbox: Sandbox) -> Iterator[Project]:
        """A port on which nobody listens."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            yield replace(project(sandbox), query_url=f"http://127.0.0.1:{taken.getsockname()[1]}/api/query")

    def test_says_so_within_a_second_or_two(self, sandbox: Sandbox, nobody: Project) -> None:
        asked = ask(sandbox, of=nobody, max_attempts=9)
        assert isinstance(asked.error, UnreachableError)
        assert "check network, MP_REGION and MP_*_URL" in str(asked.error)
        # Red when urllib3's name of its connection object stays.
        assert (
            f" (Failed to establish a new connection: [Errno {errno.ECONNREFUSED}] Connection refused): check "
            in str(asked.error)
        )
        assert len(asked.waits) == 2
        assert sum(asked.waits) < 2.5

    def test_says_which_of_the_two_hosts_it_is(self, sandbox: Sandbox, nobody: Project) -> None:
        # Red with the host of queries in every error, and when one host that answered speaks for the other.
        sandbox.faults = []
        of = replace(project(sandbox), export_url=nobody.query_url)
        client = MixpanelClient(of, policy=RetryPolicy(max_attempts=1))
        client.query_engage_page(0)
        with pytest.raises(UnreachableError, match=f"cannot reach {urlsplit(of.export_url).netloc} "):
            save_export(client, EventsQuery(), "2026-01-01", "2026-01-01", io.BytesIO())
        client.close()

    def test_a_bad_url_is_final(self, sandbox: Sandbox) -> None:
        asked = ask(sandbox, of=replace(project(sandbox), query_url="http://" + "a" * 80 + ".example:99999/q"))
        assert asked.error is not None
        assert asked.waits == [] or isinstance(asked.error, UnreachableError)


class TestTls:
    def test_a_certificate_that_nobody_vouches_for_is_final(self, sandbox: Sandbox) -> None:
        # Red when it is a fault of the network like the others.
        with sandbox_behind_tls(Sandbox(Population(30), secret=SECRET)) as url:
            asked = ask(sandbox, of=replace(project(sandbox), query_url=f"{url}/api/query"))
        assert type(asked.error) is FatalError
        assert f"the TLS certificate of {url.removeprefix('https://')} was refused" in str(asked.error)
        assert asked.waits == []

    def test_a_handshake_that_breaks_off_is_tried_again(self, sandbox: Sandbox) -> None:
        # Red when every error of TLS is taken for a refused certificate.
        with socketserver.TCPServer(("127.0.0.1", 0), _HangUp) as server:
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
            asked = ask(
                sandbox, of=replace(project(sandbox), query_url=f"https://127.0.0.1:{server.server_address[1]}")
            )
            server.shutdown()
        assert type(asked.error) is TransientError
        assert "the connection broke off" in str(asked.error)
        assert len(asked.waits) == 2


class TestProxy:
    @pytest.fixture
    def https(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Project]:
        """A project behind TLS that is trusted, and a .netrc that knows other credentials for it."""
        netrc = tmp_path / "netrc"
        netrc.write_text("machine 127.0.0.1 login somebody password else\n")
        monkeypatch.setenv("NETRC", str(netrc))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(CERTIFICATE))
        sandbox = Sandbox(Population(30), page_size=10, secret=SECRET)
        with sandbox_behind_tls(sandbox) as url:
            yield replace(project(sandbox), query_url=f"{url}/api/query")

    def test_is_used_and_sees_nothing(self, sandbox: Sandbox, https: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        # Red without trust_env (the certificate is refused), and without session.auth (.netrc answers).
        with ConnectProxy() as proxy:
            monkeypatch.setenv("HTTPS_PROXY", proxy.url)
            asked = ask(sandbox, of=https)
        assert asked.page is not None, asked.error
        assert proxy.heard.startswith(b"CONNECT 127.0.0.1:")
        assert SECRET.encode() not in proxy.heard
        assert base64.b64encode(f"{https.username}:{SECRET}".encode()) not in proxy.heard

    def test_is_left_out_for_hosts_that_need_none(
        self, sandbox: Sandbox, https: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with ConnectProxy() as proxy:
            monkeypatch.setenv("HTTPS_PROXY", proxy.url)
            monkeypatch.setenv("NO_PROXY", "127.0.0.1")
            assert ask(sandbox, of=https).page is not None
        assert proxy.heard == b""

    def test_that_refuses_is_named_without_its_password(
        self, sandbox: Sandbox, https: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with ConnectProxy(refuses=True) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", proxy.url)
            asked = ask(sandbox, of=https)
        assert isinstance(asked.error, UnreachableError)
        assert str(asked.error).endswith("407 Proxy Authentication Required): check the proxy")

    @pytest.mark.parametrize("address", ["user:marker#@proxy", "user:marker@[proxy", "user:marker\u2019@proxy"])
    def test_that_cannot_be_read_is_not_quoted(
        self, sandbox: Sandbox, https: Project, monkeypatch: pytest.MonkeyPatch, address: str
    ) -> None:
        # Red with the cause in the error: urllib3 quotes the address, its later versions what they take for the host.
        monkeypatch.setenv("HTTPS_PROXY", f"http://{address}")
        asked = ask(sandbox, of=https)
        assert "cannot be sent" in str(asked.error)
        assert str(asked.error).endswith("check MP_*_URL and HTTPS_PROXY")
        assert "marker" not in str(asked.error)

    def test_a_bundle_of_certificates_that_is_not_there_is_one_line(
        self, sandbox: Sandbox, https: Project, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Red when only the errors of requests are caught: this one is Python's.
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere")
        assert "cannot be sent: Could not find a suitable TLS CA" in str(ask(sandbox, of=https).error)

    def test_for_plain_http_is_not_used(self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        # Red with trust_env: the proxy is asked, and sees the credentials.
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        assert ask(sandbox).page is not None


class _HangUp(socketserver.BaseRequestHandler):
    """Hears the client out, and says nothing."""

    def handle(self) -> None:
        self.request.recv(1 << 16)


class TestSecrets:
    def test_a_server_that_quotes_the_credentials_is_not_quoted(self, sandbox: Sandbox) -> None:
        # Red without redact in _status_error.
        pair = base64.b64encode(f"{sandbox.username}:{SECRET}".encode()).decode()
        for status in (400, 401, 403, 429, 500):
            body = f'{{"error":"not with {SECRET}, Basic {pair}"}}'
            asked = ask(sandbox, Fault("engage", f"status:{status}", 0, times=None, body=body), max_attempts=1)
            said = f"{asked.error!r} {asked.retrier.attempts}"
            assert SECRET not in said
            assert pair not in said

    def test_nor_is_one_that_does_so_under_200(self, sandbox: Sandbox) -> None:
        # Red without redact in _page.
        asked = ask(sandbox, Fault("engage", "json-error-200", 0, body=f'{{"error":"{SECRET}"}}'), max_attempts=1)
        assert SECRET not in f"{asked.error!r} {asked.retrier.attempts}"

    def test_what_is_a_page_only_without_the_credentials_is_none(self) -> None:
        # Red when the redacted body is taken for the page: it has passed no filter, and says what nobody served.
        body = r'{"page":0,"page_size":10,"total":1,"results":[{"$distinct_id":"a","$properties":{"$email":"\q"}}]}'
        with Sandbox(Population(3), secret=r"\q") as other:
            fault = Fault("engage", "json-error-200", body=body)
            asked = ask(other, fault, of=replace(project(other), secret=r"\q"), max_attempts=1)
        assert isinstance(asked.error, MalformedPageError)

    def test_repr_shows_no_secret(self, sandbox: Sandbox) -> None:
        assert SECRET not in repr(project(sandbox))
        assert SECRET not in repr(vars(Transport(project(sandbox)))["_project"])

    @pytest.mark.parametrize("secret", ["caf\xe9", "\u201cquoted\u201d", "\U0001f511", "a:b\nc"])
    def test_any_text_can_be_a_secret(self, secret: str) -> None:
        # Red when requests gets text instead of bytes: UnicodeEncodeError.
        with Sandbox(Population(3), secret=secret) as other:
            client = MixpanelClient(replace(project(other), secret=secret), policy=RetryPolicy(max_attempts=1))
            assert fetch_page(client, ProfileQuery(), 0, None, client.retrier(_log())).served == 3


def test_a_page_that_never_ends_is_given_up(sandbox: Sandbox) -> None:
    """Red without a read timeout: waits for 30 s."""
    sandbox.faults = [Fault("engage", "delay", 0, times=None, seconds=30)]
    transport = Transport(project(sandbox), RequestLimits(query_read_timeout_seconds=0.2))
    with pytest.raises(TransientError, match=r"page 0: no answer within 0.2 s"):
        transport.send(page_request(project(sandbox).query_url, ProfileQuery(), 0, None))
    transport.close()


def test_whole_response_for_people(sandbox: Sandbox) -> None:
    """`query_engage_page`: the decoded response, as the API documents it."""
    sandbox.faults = []
    client = MixpanelClient(project(sandbox), policy=RetryPolicy(max_attempts=1))
    first = client.query_engage_page(0)
    second = client.query_engage_page(1, session_id=first["session_id"])
    assert (first["page"], first["page_size"], first["total"], first["status"]) == (0, 10, 30, "ok")
    assert (second["page"], len(second["results"])) == (1, 10)
    assert first["session_id"] == second["session_id"]
    client.close()


def test_a_connection_outlives_the_thread_that_opened_it(sandbox: Sandbox) -> None:
    """Red with a session per thread: a page is a thread of its own, and would open a connection of its own."""
    sandbox.faults = []
    before = sandbox.connections
    client = MixpanelClient(project(sandbox), policy=RetryPolicy(max_attempts=1))
    for _ in range(10):
        thread = threading.Thread(target=client.query_engage_page, args=(0,))
        thread.start()
        thread.join()
    client.close()
    assert sandbox.connections - before == 1


def test_threads_at_the_same_time_share_nothing(sandbox: Sandbox) -> None:
    """As many connections as there are requests in flight, and each gets its own page."""
    sandbox.faults = [Fault("engage", "delay", None, times=None, seconds=0.3)]
    before = sandbox.connections
    client = MixpanelClient(project(sandbox), policy=RetryPolicy(max_attempts=1))
    session_id = client.query_engage_page(0)["session_id"]
    pages: dict[int, Any] = {}
    threads = [
        threading.Thread(
            target=lambda n: pages.update({n: client.query_engage_page(n, session_id=session_id)}), args=(n,)
        )
        for n in (0, 1, 2) * 3
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.close()
    sandbox.faults = []
    assert {number: page["page"] for number, page in pages.items()} == {0: 0, 1: 1, 2: 2}
    assert len({page["results"][0]["$distinct_id"] for page in pages.values()}) == 3
    assert sandbox.connections - before <= 9
