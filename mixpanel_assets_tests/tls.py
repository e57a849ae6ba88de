"""The sandbox behind TLS, and a proxy in front of it, on loopback.

Belongs here: what stands between a client and the sandbox. Not here: what tests expect of it.
"""

import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mixpanel_assets.sandbox import Sandbox

# For 127.0.0.1, signed by itself, until 2126; its key lies in the same file.
CERTIFICATE = Path(__file__).parent / "tls.pem"


@contextmanager
def sandbox_behind_tls(sandbox: Sandbox) -> Iterator[str]:
    """Start the sandbox as a server of https. Gives its address."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    with sandbox:
        server = sandbox._server
        assert server is not None
        # The handshake comes with the first read, in the connection's own thread: one that fails keeps nobody waiting.
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        yield sandbox.url.replace("http:", "https:")


class ConnectProxy(socketserver.ThreadingTCPServer):
    """A proxy for https. `heard`: all that clients sent it, or sent through it."""

    daemon_threads = True

    def __init__(self, *, refuses: bool = False) -> None:
        self.refuses = refuses
        self.heard = b""
        super().__init__(("127.0.0.1", 0), _Tunnel)

    def __enter__(self) -> "ConnectProxy":
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    @property
    def url(self) -> str:
        return f"http://user:proxy-password@127.0.0.1:{self.server_address[1]}"


class _Tunnel(socketserver.StreamRequestHandler):
    server: ConnectProxy

    def handle(self) -> None:
        lines = list(iter(self.rfile.readline, b"\r\n"))
        self.server.heard += b"".join(lines)
        method, address, _ = lines[0].split(b" ")
        if method != b"CONNECT" or self.server.refuses:
            self.wfile.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return
        host, port = address.split(b":")
        with socket.create_connection((host.decode(), int(port))) as server:
            self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            threading.Thread(target=_pass_on, args=(server, self.connection), daemon=True).start()
            while block := self.rfile.read1():
                self.server.heard += block
                server.sendall(block)


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while block := source.recv(1 << 16):
            target.sendall(block)
        target.shutdown(socket.SHUT_RDWR)
