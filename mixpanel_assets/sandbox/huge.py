"""Bodies of any size out of a few bytes: what a hostile server sends to fill memory or disk.

Belongs here: their text, as one gzip stream made while it goes out. Not here: when (faults.py), framing (wire.py).
"""

import struct
import zlib
from collections.abc import Iterator

_MB = 1_000_000
_EVENT = b'{"event":"a","properties":{"time":1767225600000,"distinct_id":"a","$insert_id":"a"}}\n'
_PARTS = {
    "huge-page": (
        b'{"page":0,"page_size":1,"total":1,"session_id":"1-a","results":[{"$distinct_id":"a","$properties":{"x":"',
        b"a",
        b'"}}],"status":"ok"}',
    ),
    "huge-line": (b'{"event":"a","properties":{"time":1767225600000,"x":"', b"a", b'"}}\n'),
    "huge-export": (b"", _EVENT, b""),
}
KINDS = frozenset(_PARTS)


def blocks(kind: str, megabytes: int) -> Iterator[bytes]:
    """The gzip stream of a body with so many megabytes."""
    head, repeated, tail = _PARTS[kind]
    middle = repeated * (_MB // len(repeated))
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    begun = packer.compress(head) + packer.flush(zlib.Z_FULL_FLUSH)
    # After a full flush a block refers to nothing before it, so one may be sent over and over.
    packed = packer.compress(middle) + packer.flush(zlib.Z_FULL_FLUSH)
    yield b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff" + begun
    checksum = zlib.crc32(head)
    for _ in range(megabytes):
        checksum = zlib.crc32(middle, checksum)
        yield packed
    yield packer.compress(tail) + packer.flush()
    size = len(head) + megabytes * len(middle) + len(tail)
    yield struct.pack("<II", zlib.crc32(tail, checksum), size & 0xFFFFFFFF)
