"""One HTTP request to Mixpanel: out it goes, and back comes a good response or an error that says what to do.

The only place that touches `requests`, knows the credentials, and maps statuses to errors. Repeating a request is
retry.py's; what a good body means is the streams'.
"""

import http.client
import re
import ssl
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import requests
import urllib3
from requests.auth import HTTPBasicAuth

from mixpanel_assets.client import rate_limits
from mixpanel_assets.client.answer import Answer, TooSlowError, ended, silent
from mixpanel_assets.client.apis import EXPORTS, Api, own_words
from mixpanel_assets.client.connections import OneAtATimeSession
from mixpanel_assets.client.json_text import Text, read_string
from mixpanel_assets.client.project import Project
from mixpanel_assets.client.request_limits import DEFAULT_LIMITS, RequestLimits, Times
from mixpanel_assets.client.request_watch import RequestWatch
from mixpanel_assets.client.served_days import edge_refused
from mixpanel_assets.client.server_text import ServerText, reason_in, words_of
from mixpanel_assets.errors import (
    AuthenticationError,
    FatalError,
    MixpanelError,
    PlanError,
    QuotaError,
    RestartError,
    TransientError,
)

# How urllib3 begins its messages: which object, not what happened.
_CONNECTION = re.compile(r"^(<[\w.]+ object at \w+>|[\w.]+\(host=.*?, port=\d+\)): ")
# An error body is read up to here and no further: it is only quoted.
_ERROR_BODY_BYTES = 64 * 1024
# What is asked is wrong, or too long.
_REFUSALS = (400, 413, 414, 422)

OnResponse = Callable[[int, rate_limits.RateLimits], None]


class UnreachableError(TransientError):
    """No connection to the host has come about yet: wrong name, no network, or nobody listens."""


class ServerTimeoutError(TooSlowError):
    """Mixpanel gave up on the query itself; a smaller one may succeed."""


class BadRequestError(FatalError):
    """Mixpanel does not understand the request: a filter is wrong, or its session unknown."""


@dataclass(frozen=True)
class Request:
    """One request; `what` names it in errors, such as `page 7`, and `brings` what it fetches, if not what its API does
    by default."""

    api: Api
    method: str
    url: str
    what: str
    params: Mapping[str, str] = field(default_factory=dict)
    form: Mapping[str, str] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    brings: str = ""

    @property
    def sent(self) -> Mapping[str, str]:
        """All parameters, wherever they stand."""
        return {**self.params, **(self.form or {})}


class Transport:
    """Sends requests for one project, each through a `requests.Session` that sends no other before the answer begins.

    Bodies are read later: a response keeps its connection, and the session's next request takes another.
    """

    def __init__(
        self,
        project: Project,
        limits: RequestLimits = DEFAULT_LIMITS,
        stop: threading.Event | None = None,
    ) -> None:
        self._project = project
        self.texts = ServerText(project.secret)
        self._limits = limits
        self._stop = stop or threading.Event()
        self._idle: deque[requests.Session] = deque()
        self._answered: set[str] = set()

    def send(self, request: Request, on_response: OnResponse = lambda status, limits: None) -> Answer:
        """Send once. The answer's body is not read yet: the caller reads it and closes the answer.

        `on_response` is told the status of whatever answer comes, and what its headers say about limits.

        Raises:
            MixpanelError: the subclass says whether to retry, wait, start over or stop.
            Cancelled: the run was asked to end.
        """
        times = self._limits.times(of_export=request.api is EXPORTS)
        watch = RequestWatch(times.whole, self._stop)
        try:
            response = self._send(request, watch, times)
            self._answered.add(_host(request.url))
            on_response(response.status_code, rate_limits.parse(response.headers))
            if response.status_code == 200:
                return Answer(response, request.what, watch, times, self.texts)
            with response:
                raise self._status_error(response, request)
        except MixpanelError as error:
            watch.end()
            # Who reads it knows the project's settings by these names.
            error.args = (self._project.in_own_names(str(error)),)
            raise
        except BaseException:
            watch.end()
            raise

    def _send(self, request: Request, watch: RequestWatch, times: Times) -> requests.Response:
        try:
            with self._session() as session, watch.begin():
                # HTTPS_PROXY, NO_PROXY and REQUESTS_CA_BUNDLE hold where TLS hides the credentials from the proxy; one
                # for plain http would see them. .netrc replaces none: requests asks it only where no auth is set.
                session.trust_env = urlsplit(request.url).scheme == "https"
                return session.request(
                    request.method,
                    request.url,
                    params={**self._project.params, **request.params},
                    data=request.form,
                    headers=dict(request.headers),
                    timeout=(self._limits.connect_timeout_seconds, times.silence),
                    allow_redirects=False,
                    stream=True,
                )
        # Not only of requests: a missing file of certificates, a bad address, and what it lets through of urllib3.
        except (OSError, ValueError, urllib3.exceptions.HTTPError) as error:
            if watch.is_late or watch.is_cancelled:
                raise ended(request.what, watch, times) from None
            if isinstance(error, requests.exceptions.ReadTimeout):
                raise silent(request.what, times) from None
            raise self._network_error(error, request.url, request.what) from None

    def _network_error(self, error: Exception, url: str, what: str) -> MixpanelError:
        """The error of ours for an exception of the HTTP library."""
        host = _host(url)
        # Of a wrong header of our own requests says so without an exception beneath.
        if any(isinstance(inner, urllib3.exceptions.InvalidHeader) for inner in error.args):
            return TransientError(f"{what}: the answer is broken: its headers contradict each other")
        if isinstance(error, ValueError):
            # Not quoted: it may be the proxy's address, with a password in it.
            name = type(error).__name__
            return FatalError(f"{what}: the request cannot be sent ({name}): check MP_*_URL and HTTPS_PROXY")
        innermost = _innermost(error)
        # An answer without a status line is quoted by none: it may be data.
        text = "" if isinstance(innermost, http.client.BadStatusLine) else str(innermost)
        cause = self.texts.quoted(_CONNECTION.sub("", text)) or type(innermost).__name__
        # Other errors of TLS, such as a peer that closes amid the handshake, are faults of the network.
        if isinstance(innermost, ssl.SSLCertVerificationError):
            return FatalError(
                f"{what}: the TLS certificate of {host} was refused: {cause}: if your network inspects TLS, name its "
                "certificate in REQUESTS_CA_BUNDLE"
            )
        if host not in self._answered and _never_connected(error):
            by_proxy = isinstance(error, requests.exceptions.ProxyError)
            suspects = "the proxy" if by_proxy else "network, MP_REGION and MP_*_URL"
            return UnreachableError(f"{what}: cannot reach {host} ({cause}): check {suspects}")
        if isinstance(
            error,
            (
                requests.exceptions.ConnectionError,
                requests.exceptions.ChunkedEncodingError,
                requests.exceptions.ContentDecodingError,
                urllib3.exceptions.HTTPError,
            ),
        ):
            return TransientError(f"{what}: the connection broke off ({cause})")
        return FatalError(f"{what}: the request cannot be sent: {cause}")

    def close(self) -> None:
        """Close the connections."""
        while self._idle:
            self._idle.pop().close()

    @contextmanager
    def _session(self) -> Iterator[requests.Session]:
        """A session for this block alone.

        Not one per thread: each step is a thread of its own, so that each page would open a new TLS connection, and
        leave it open until the run ends.
        """
        try:
            session = self._idle.pop()
        except IndexError:
            session = self._new_session()
        try:
            yield session
        finally:
            self._idle.append(session)

    def _new_session(self) -> requests.Session:
        session = OneAtATimeSession()
        # As bytes: text that is not Latin-1, such as a pasted curly quote, would raise instead of being refused.
        session.auth = HTTPBasicAuth(self._project.username.encode(), self._project.secret.encode())
        session.headers["User-Agent"] = "mixpanel-assets"
        return session

    def _status_error(self, response: requests.Response, request: Request) -> MixpanelError:
        what = request.what
        text = self.texts.quoted(_error_text(response)) or "no reason given"
        limits = rate_limits.parse(response.headers)
        status = response.status_code
        if status == 429:
            return _too_many_requests(limits, text, what)
        if status >= 500 or status == 408:
            error_type = ServerTimeoutError if status == 504 else TransientError
            return error_type(f"{what}: Mixpanel answered {status}: {text}", limits.retry_after)
        return _refusal(status, text, request)


def error_in_body(members: Mapping[str, Text], what: str, texts: ServerText) -> MixpanelError | None:
    """The error that a JSON object reports under HTTP 200, if it does; `texts` are those of its server."""
    reason = members.get("error", Text(b"null"))
    is_given = bytes(reason) != b"null"
    if not is_given and bytes(members.get("status", b"")) != b'"error"':
        return None
    text = texts.quoted(words_of(read_string(reason) or bytes(reason).decode())) if is_given else "no reason given"
    # Only a lost session is certain enough to act on; any other text under 200 may be a passing fault.
    return _lost_session(text, what) or TransientError(f"{what}: Mixpanel answered 200 with an error: {text}")


def _refusal(status: int, text: str, request: Request) -> MixpanelError:
    what, api = request.what, request.api
    if 200 < status < 300:
        # Not quoted: it may be data, and hold what is not to be kept.
        return FatalError(f"{what}: Mixpanel answered {status} instead of 200: check MP_REGION and MP_*_URL")
    lower = text.lower()
    if status == 401 or "unable to authenticate" in lower:
        return AuthenticationError(
            f"{what}: Mixpanel refused the credentials ({status}): "
            "check MP_USERNAME, MP_SECRET, MP_PROJECT_ID and MP_REGION"
        )
    if status == 402:
        brings = request.brings or api.brings
        lacks = f"the project's plan has no {api.name} (402), so {brings} cannot be fetched{api.still}"
        return PlanError(f"{what}: {lacks}: {text}")
    if lost := _lost_session(text, what):
        return lost
    if status == 400 and "timeout error" in lower:
        return ServerTimeoutError(f"{what}: Mixpanel ran out of time: {text}")
    if 300 <= status < 400:
        return FatalError(f"{what}: Mixpanel redirects ({status}), which is not followed: check MP_REGION and MP_*_URL")
    if "from_date" in request.params:
        message = f"{what}: Mixpanel does not serve all of these days ({status}): {text}"
        refused = edge_refused(message, own_words(text, request.sent))
        if refused is not None:
            return refused
    if status == 403:
        return FatalError(f"{what}: Mixpanel answered 403, check what MP_USERNAME may read in the project: {text}")
    if status in (404, 405, 410):
        return FatalError(f"{what}: Mixpanel answered {status}, check MP_REGION and MP_*_URL: {text}")
    if status not in _REFUSALS:
        return FatalError(f"{what}: Mixpanel answered {status}: {text}")
    error_type = BadRequestError if status == 400 else FatalError
    to_check = api.to_check(text, request.sent)
    return error_type(f"{what}: Mixpanel refused the request ({status}), check {to_check}: {text}")


def _lost_session(text: str, what: str) -> RestartError | None:
    return RestartError(f"{what}: the session is lost: {text}") if "uncached query" in text.lower() else None


def _too_many_requests(limits: rate_limits.RateLimits, text: str, what: str) -> MixpanelError:
    if rate_limits.is_hourly(limits, text):
        reset = limits.seconds_until_free
        when = f"room again in {reset:.0f} s" if reset is not None else "room again within the hour"
        return QuotaError(f"{what}: the hourly quota of the project is spent, {when}", reset)
    return TransientError(f"{what}: too many requests in flight or in a short time (429): {text}", limits.retry_after)


def _error_text(response: requests.Response) -> str:
    try:
        body = response.raw.read(_ERROR_BODY_BYTES, decode_content=True)
    except Exception:  # noqa: BLE001 - the status is the news; a broken body must not hide it
        return "(no readable body)"
    return reason_in(body.decode("utf-8-sig", errors="replace"))


def _host(url: str) -> str:
    return urlsplit(url).netloc


def _innermost(error: BaseException) -> BaseException:
    """The root cause: libraries wrap "Connection refused" four times over."""
    while True:
        inner = getattr(error, "reason", None) or next((a for a in error.args if isinstance(a, BaseException)), None)
        if not isinstance(inner, BaseException):
            return error
        error = inner


def _never_connected(error: Exception) -> bool:
    if isinstance(error, (requests.exceptions.ConnectTimeout, requests.exceptions.ProxyError)):
        return True
    text = repr(error)
    return "NewConnectionError" in text or "NameResolutionError" in text
