"""How a reply travels: headers, framing, gzip, and the ways in which a connection can fail underneath.

Belongs here: bytes on the socket. Not here: what the body says (replies.py, engage.py, export.py).
"""

import socket
import struct
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler
from typing import BinaryIO

from mixpanel_assets.sandbox import huge
from mixpanel_assets.sandbox.bodies import gzip_blocks, gzip_size, plain_blocks, plain_size
from mixpanel_assets.sandbox.replies import Reply

# Mixpanel compresses bodies above this size, when asked to.
_WORTH_GZIP = 1400
_TRICKLES = 20
_CHUNKED = frozenset({"no-final-chunk", "bad-chunk"})
_MEGABYTE = b" " * 1_000_000


@dataclass(frozen=True)
class Damage:
    """What happens to a body under way: see the table in faults.py. `keep` is the fraction that arrives; `seconds`
    what a trickle takes."""

    kind: str
    keep: float = 0.5
    seconds: float = 0.0
    megabytes: int = 0


@dataclass
class Wire:
    """Sends one reply over a handler's connection. `leaving` is called just before the last byte goes out, with the
    number of body bytes, so that a client never sees an answer that the journal does not know."""

    handler: BaseHTTPRequestHandler
    leaving: Callable[[int], None]

    def send(self, reply: Reply, *, accepts_gzip: bool, damage: Damage | None = None) -> None:
        if damage is not None and damage.kind == "drop":
            self.leaving(0)
            return self._hang_up()
        if damage is not None and damage.kind in huge.KINDS:
            self._start(reply, zipped=True, size=None)
            return self._send_chunks(huge.blocks(damage.kind, damage.megabytes))
        if damage is not None and damage.kind == "huge-chunk":
            self._start(reply, zipped=False, size=None)
            return self._send_huge_chunk(damage.megabytes)
        zipped = self._is_zipped(reply, accepts_gzip=accepts_gzip, damage=damage)
        blocks = gzip_blocks(reply.pieces) if zipped else plain_blocks(reply.pieces)
        if damage is not None:
            return self._send_damaged(reply, b"".join(blocks), damage, zipped=zipped)
        if reply.chunked:
            self._start(reply, zipped=zipped, size=None)
            return self._send_chunks(blocks)
        size = gzip_size(reply.pieces) if zipped else plain_size(reply.pieces)
        self._start(reply, zipped=zipped, size=size)
        return self._send_sized(blocks, size)

    def _is_zipped(self, reply: Reply, *, accepts_gzip: bool, damage: Damage | None) -> bool:
        if damage is not None and damage.kind == "gzip-cut":
            return True
        return accepts_gzip and plain_size(reply.pieces) > _WORTH_GZIP

    def _start(self, reply: Reply, *, zipped: bool, size: int | None, framed: bool = True) -> None:
        handler = self.handler
        handler.send_response(reply.status)
        handler.send_header("Content-Type", reply.content_type)
        for name, value in reply.headers.items():
            handler.send_header(name, value)
        if zipped:
            handler.send_header("Content-Encoding", "gzip")
        if not framed:
            handler.send_header("Connection", "close")
        elif size is None:
            handler.send_header("Transfer-Encoding", "chunked")
        else:
            handler.send_header("Content-Length", str(size))
        if size == 0:
            self.leaving(0)
        handler.end_headers()

    def _send_sized(self, blocks: Iterable[bytes], size: int) -> None:
        sent = 0
        for block in blocks:
            sent += len(block)
            if sent < size or not block:
                self._write(block)
                continue
            self._write(block[:-1])
            self.leaving(size)
            self._write(block[-1:])

    def _send_chunks(self, blocks: Iterable[bytes]) -> None:
        sent = 0
        for block in blocks:
            sent += len(block)
            self._write(_chunk(block))
        self.leaving(sent)
        self._write(b"0\r\n\r\n")

    def _send_huge_chunk(self, megabytes: int) -> None:
        self.leaving(megabytes * len(_MEGABYTE))
        self._write(b"-1\r\n")
        for _ in range(megabytes):
            self._write(_MEGABYTE)
        self._hang_up()

    def _send_damaged(self, reply: Reply, body: bytes, damage: Damage, *, zipped: bool) -> None:
        part = body[: int(len(body) * damage.keep)]
        if damage.kind == "gzip-cut":
            self._start(reply, zipped=True, size=len(part))
            return self._send_sized([part], len(part))
        if damage.kind == "two-lengths":
            reply = replace(reply, headers={**reply.headers, "Content-Length": str(len(body) + 1)})
            self._start(reply, zipped=zipped, size=len(body))
            self._send_sized([body], len(body))
            return self._hang_up()
        if damage.kind == "trickle-head":
            self._trickle(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n", damage.seconds)
            self._write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
            return self._hang_up()
        if damage.kind == "trickle":
            self._start(reply, zipped=zipped, size=len(body))
            return self._trickle(body, damage.seconds)
        self._start(reply, zipped=zipped, framed=damage.kind != "no-framing", size=_announced(body, damage))
        self._write(_chunk(part) if damage.kind in _CHUNKED else part)
        self.leaving(len(part))
        if damage.kind == "bad-chunk":
            self._write(b"-5\r\n")
        if damage.kind == "reset":
            _reset_on_close(self.handler.connection)
        return self._hang_up()

    def _trickle(self, body: bytes, seconds: float) -> None:
        step = max(1, -(-len(body) // _TRICKLES))
        for start in range(0, len(body), step):
            time.sleep(seconds / _TRICKLES)
            if start + step >= len(body):
                self.leaving(len(body))
            self._write(body[start : start + step])

    def _write(self, data: bytes) -> None:
        stream: BinaryIO = self.handler.wfile  # type: ignore[assignment]  # typeshed: BufferedIOBase
        stream.write(data)

    def _hang_up(self) -> None:
        self.handler.close_connection = True


def _announced(body: bytes, damage: Damage) -> int | None:
    if damage.kind == "bad-length":
        return -1
    return None if damage.kind in {*_CHUNKED, "no-chunks", "no-framing"} else len(body)


def _chunk(block: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(block), block) if block else b""


def _reset_on_close(connection: socket.socket) -> None:
    """Linger for 0 s: closing sends RST. The server must then close without shutting down first."""
    layout = "hh" if sys.platform == "win32" else "ii"
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack(layout, 1, 0))
