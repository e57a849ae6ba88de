"""A list of rows that lies in a file without a name: it is gone with the last who uses it, or with the process."""

import tempfile
import weakref
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Generic, TypeVar

import msgspec

T = TypeVar("T")


class Spool(Collection[T], Generic[T]):
    """Rows in the order in which they were added. One reader at a time.

    Args:
        row_type: What the rows are, as msgspec writes and reads it.
        folder: Where the file lies; None: where the system puts such files.
    """

    def __init__(self, row_type: type[T], folder: Path | None) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - it lives as long as this
        weakref.finalize(self, self._file.close)
        self._encoder = msgspec.json.Encoder()
        self._decoder = msgspec.json.Decoder(row_type)
        self._count = 0

    def add(self, rows: Iterable[T]) -> None:
        """Append rows.

        Raises:
            OSError: the disk takes no more.
        """
        listed = list(rows)
        self._file.write(self._encoder.encode_lines(listed))
        self._count += len(listed)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[T]:
        self._file.seek(0)
        for line in self._file:
            yield self._decoder.decode(line)

    def __contains__(self, row: object) -> bool:
        return any(each == row for each in self)
