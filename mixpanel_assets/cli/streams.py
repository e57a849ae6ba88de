"""stdin, stdout and stderr of the process, whatever it was started with.

Belongs here: streams that are closed, full, or read by nobody. Does not belong here: what is printed (output.py).
"""

import io
import os
import sys
from typing import TextIO


def prepare() -> None:
    """Fill the places of closed streams, and let no line on stderr end a sync.

    Otherwise the next file that is opened gets the number of a closed stdout: it may be the DuckDB file, and what a
    library prints goes there.
    """
    for descriptor in (0, 1, 2):
        if not _is_open(descriptor):
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = _writer(1)
    sys.stderr = _Stderr(_writer(2) if sys.stderr is None else sys.stderr)


def discard(stream: TextIO) -> None:
    """Send what the stream holds, and all that follows, to nowhere: it would raise anew at the interpreter's end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


class _Stderr(io.TextIOWrapper):
    """stderr that goes silent where it cannot be written."""

    def __init__(self, stream: TextIO) -> None:
        self._beneath = stream  # Dropped, it would close the descriptor.
        encoding = getattr(stream, "encoding", None) or "utf-8"
        super().__init__(stream.buffer, encoding, "backslashreplace", line_buffering=True)

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError:
            discard(self)
            return len(text)

    def flush(self) -> None:
        try:
            super().flush()
        except OSError:
            discard(self)


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _writer(descriptor: int) -> TextIO:
    return open(descriptor, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
