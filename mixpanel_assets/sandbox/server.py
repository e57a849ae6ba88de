"""The HTTP server on loopback: connections, parameters, one call at a time per connection.

Belongs here: what every HTTP server needs. Not here: what is answered (stand_in.py), bytes of an answer (wire.py).
"""

import json
import socket
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlsplit

from mixpanel_assets.sandbox.journal import Arrival
from mixpanel_assets.sandbox.replies import Refused, Reply, plain_status
from mixpanel_assets.sandbox.wire import Damage, Wire

_SECRETS = ("secret", "password", "api_secret")


@dataclass
class Call:
    """One request under way. `admitted` is None until the limits let it in, then whether it counts."""

    endpoint: str
    method: str
    request: str
    params: dict[str, str]
    authorization: str
    arrival: Arrival
    admitted: bool | None = None
    session_id: str | None = None
    fault: str | None = None
    damage: Damage | None = None

    @property
    def page(self) -> int | None:
        if self.endpoint != "engage":
            return None
        text = self.params.get("page") or "0"
        return int(text) if text.isdecimal() else None


class Application(Protocol):
    """What the server asks of the sandbox."""

    errors: list[str]

    def endpoint(self, path: str) -> str | None: ...
    def control(self, method: str, path: str, body: bytes) -> Reply: ...
    def arrive(self, endpoint: str) -> Arrival: ...
    def answer(self, call: Call) -> Reply: ...
    def left(self, call: Call, status: int, rows: int, size: int) -> None: ...


class Server(ThreadingHTTPServer):
    """Threads per connection, on 127.0.0.1 only. `server_close` also closes the connections that clients keep open.

    `accepted`: connections so far.
    """

    daemon_threads = True
    block_on_close = False
    request_queue_size = 1024

    def __init__(self, application: Application, port: int) -> None:
        self.application = application
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.accepted = 0
        super().__init__(("127.0.0.1", port), Handler)

    def server_bind(self) -> None:
        """Without the reverse look-up of the host name, which can take seconds where there is no DNS."""
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            self._open.add(request)
            self.accepted += 1
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Close at once when a fault asked for RST: an orderly shutdown would send FIN first."""
        with self._lock:
            self._open.discard(request)
        if request.fileno() >= 0 and _resets(request):
            request.close()
        else:
            super().shutdown_request(request)

    def server_close(self) -> None:
        super().server_close()
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: Any, client_address: Any) -> None:
        self.application.errors.append(traceback.format_exc())


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "Sandbox", ""
    # Headers and body leave in separate writes; without this the second waits 40 ms for the client's delayed ACK.
    disable_nagle_algorithm = True
    wbufsize = 0

    server: Server

    def handle(self) -> None:
        # A client may go away at any time: that is its right, and no mistake of the sandbox.
        with suppress(ConnectionError, TimeoutError):
            super().handle()

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def log_message(self, format: str, *args: Any) -> None:
        """The journal is the log."""

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url, application = urlsplit(self.path), self.server.application
        endpoint = application.endpoint(url.path)
        if endpoint is not None:
            params = _params(url.query, body)
            authorization = self.headers.get("Authorization", "")
            self._answer(Call(endpoint, self.command, self.path, params, authorization, application.arrive(endpoint)))
        else:
            self._send(application.control(self.command, url.path, body), lambda _: None)

    def _answer(self, call: Call) -> None:
        reply, leave = plain_status(500, call.request), _Once(self.server.application, call)
        try:
            reply = self.server.application.answer(call)
        except Refused as refusal:
            reply = refusal.reply
        except Exception:  # noqa: BLE001  # a mistake of the sandbox: told as a 500, and kept for the test to see
            self.server.application.errors.append(traceback.format_exc())
        leave.status, leave.rows = (0 if call.damage and call.damage.kind == "drop" else reply.status), reply.rows
        try:
            self._send(reply, leave, call.damage)
        finally:
            leave(0)

    def _send(self, reply: Reply, leaving: Callable[[int], None], damage: Damage | None = None) -> None:
        accepts = "gzip" in self.headers.get("Accept-Encoding", "")
        Wire(self, leaving).send(reply, accepts_gzip=accepts, damage=damage)


class _Once:
    """Tells the sandbox that a call is over: once, however it ended."""

    def __init__(self, application: Application, call: Call) -> None:
        self.status, self.rows = 0, 0
        self._application, self._call, self._told = application, call, False

    def __call__(self, size: int) -> None:
        if not self._told:
            self._told = True
            self._application.left(self._call, self.status, self.rows, size)


def _params(query: str, body: bytes) -> dict[str, str]:
    """Those of the body override those of the address; secrets are left out, for the journal keeps the rest."""
    params = {**dict(parse_qsl(query)), **_body_params(body)}
    return {name: value for name, value in params.items() if name not in _SECRETS}


def _body_params(body: bytes) -> dict[str, str]:
    """JSON first, then form-encoded, as Mixpanel does. JSON values that are not strings become their JSON text; null is
    no value."""
    try:
        data = json.loads(body)
    except ValueError:
        return dict(parse_qsl(body.decode("utf-8", "replace")))
    if not isinstance(data, dict):
        return {}
    given = ((name, value) for name, value in data.items() if value is not None)
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in given}


def _resets(connection: socket.socket) -> bool:
    lingering = connection.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8)
    return lingering[:1] == b"\x01"
