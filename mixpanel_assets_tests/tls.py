"""The sandbox behind TLS, on loopback.

Belongs here: what stands between a client and the sandbox. Not here: what tests expect of it.
"""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
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
