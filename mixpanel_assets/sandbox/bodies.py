"""Response bodies made once and kept: in memory while they are small, in temporary files when not.

Belongs here: pieces (a page's rows, a day's lines) with their compressed form, and one gzip stream out of several
pieces. Not here: what a row says, framing on the wire. The server shares its cores with the client under test, so
serving a kept piece costs a copy, and no compression.
"""

import os
import struct
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

BLOCK = 256 * 1024
_SPILL_AT = 1024 * 1024
_MEMORY = 192 * 1024 * 1024
_GZIP_HEAD = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff"
_LAST_DEFLATE_BLOCK = b"\x03\x00"


@dataclass(frozen=True)
class Blob:
    """Bytes in memory, or in a file that outlives the blob."""

    size: int
    data: bytes = b""
    path: Path | None = None

    def blocks(self) -> Iterator[bytes]:
        if self.path is None:
            view = memoryview(self.data)
            for start in range(0, self.size, BLOCK):
                yield bytes(view[start : start + BLOCK]) if self.size > BLOCK else self.data
            return
        with self.path.open("rb", buffering=0) as file:
            while block := file.read(BLOCK):
                yield block


@dataclass
class Piece:
    """A run of rows: plain at once, deflated on first use. Many pieces concatenate to one gzip stream."""

    rows: int
    plain: Blob
    keep: Callable[[Iterable[bytes]], Blob]
    _deflated: Blob | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def deflated(self) -> Blob:
        """Raw deflate (level 1) ended by a sync flush, so that other deflate data may follow it."""
        with self._lock:
            if self._deflated is None:
                self._deflated = self.keep(_deflate(self.plain.blocks()))
            return self._deflated


def piece_of(data: bytes, rows: int = 0) -> Piece:
    """A small piece that nobody keeps."""
    return Piece(rows, Blob(len(data), data), lambda blocks: _joined(b"".join(blocks)))


def plain_blocks(pieces: Sequence[Piece]) -> Iterator[bytes]:
    for piece in pieces:
        yield from piece.plain.blocks()


def gzip_blocks(pieces: Sequence[Piece]) -> Iterator[bytes]:
    """One single-member gzip stream of all pieces: kept deflate data, and a checksum made while it streams."""
    checksum = 0
    yield _GZIP_HEAD
    for piece in pieces:
        for block in piece.plain.blocks():
            checksum = zlib.crc32(block, checksum)
        yield from piece.deflated().blocks()
    yield _LAST_DEFLATE_BLOCK + struct.pack("<II", checksum, plain_size(pieces) & 0xFFFFFFFF)


def plain_size(pieces: Sequence[Piece]) -> int:
    return sum(piece.plain.size for piece in pieces)


def gzip_size(pieces: Sequence[Piece]) -> int:
    return len(_GZIP_HEAD) + sum(piece.deflated().size for piece in pieces) + len(_LAST_DEFLATE_BLOCK) + 8


class PieceCache:
    """Pieces by key, each made once however many threads ask. Files live until `close`."""

    def __init__(self) -> None:
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._lock = threading.Lock()
        self._pieces: dict[object, _Slot] = {}
        self._files = 0
        self._in_memory = 0

    def piece(self, key: object, texts: Callable[[], Iterable[str]], separator: str = "") -> Piece:
        """The piece under `key`; else made of one text per row, joined by `separator`."""
        with self._lock:
            slot = self._pieces.setdefault(key, _Slot())
        with slot.lock:
            if slot.piece is None:
                counter = _Counter()
                blob = self._keep(_encoded(counter.count(texts()), separator))
                slot.piece = Piece(counter.rows, blob, self._keep)
            return slot.piece

    def close(self) -> None:
        with self._lock:
            self._pieces.clear()
            self._in_memory = 0
            if self._directory is not None:
                self._directory.cleanup()
                self._directory = None

    def _keep(self, blocks: Iterable[bytes]) -> Blob:
        waiting, size = [], 0
        source = iter(blocks)
        for block in source:
            waiting.append(block)
            size += len(block)
            if size > _SPILL_AT or size + self._in_memory > _MEMORY:
                return self._spill(waiting, source)
        with self._lock:
            self._in_memory += size
        return _joined(b"".join(waiting))

    def _spill(self, first: list[bytes], rest: Iterator[bytes]) -> Blob:
        with self._lock:
            if self._directory is None:
                self._directory = tempfile.TemporaryDirectory(prefix="sandbox-", ignore_cleanup_errors=True)
            self._files += 1
            path = Path(self._directory.name) / f"{self._files}.bin"
        with open(path, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.writelines(first)
            file.writelines(rest)
            return Blob(file.tell(), path=path)


@dataclass
class _Slot:
    piece: Piece | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass
class _Counter:
    rows: int = 0

    def count(self, texts: Iterable[str]) -> Iterator[str]:
        for text in texts:
            self.rows += 1
            yield text


def _joined(data: bytes) -> Blob:
    return Blob(len(data), data)


def _encoded(texts: Iterable[str], separator: str) -> Iterator[bytes]:
    """UTF-8 blocks of some hundred rows each. A lone surrogate U+DC80-U+DCFF in a text stands for the raw byte
    0x80-0xFF, so that a population can also serve bytes that are not UTF-8."""
    waiting: list[str] = []
    started = False
    for text in texts:
        waiting.append(text)
        if len(waiting) == 512:
            yield (separator * started + separator.join(waiting)).encode("utf-8", "surrogateescape")
            started, waiting = True, []
    if waiting:
        yield (separator * started + separator.join(waiting)).encode("utf-8", "surrogateescape")


def _deflate(blocks: Iterable[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    for block in blocks:
        yield packer.compress(block)
    yield packer.flush(zlib.Z_SYNC_FLUSH)
