"""A page of a snapshot, as a server sent it: what every stream in pages reads its answers into."""

from collections.abc import Collection
from dataclasses import dataclass

import msgspec


class Row(msgspec.Struct, frozen=True, gc=False):
    """One row: its key, and its JSON text exactly as served, None if there was none."""

    key: str
    content: str | None


@dataclass(frozen=True)
class RejectedRow:
    """A row that cannot be stored: its place on the page, why, and its text as served."""

    row_number: int
    reason: str
    text: str


@dataclass(frozen=True)
class Parts:
    """What page 0 of a stream in parts says: each further page holds one part, whatever its size.

    Attributes:
        names: The parts on the pages from page 1 on.
        empty: Parts that are known to hold no row, so that they have no page.
        are_all: Whether there are no other parts, so that what is stored of others goes.
    """

    names: tuple[str, ...]
    empty: tuple[str, ...] = ()
    are_all: bool = True


@dataclass(frozen=True)
class Page:
    """One page as the server sent it.

    Attributes:
        page: 0-based index.
        page_size: Rows on a full page, if the server says so.
        total: Rows in all, if the server says so.
        session_id: The session of this and all further pages.
        rows: The rows; those of a large page lie in a file.
        rejected: Rows that are none, likewise.
        repairs: Characters replaced with U+FFFD because they were no Unicode text.
        parts: On page 0 of a stream in parts: which there are.
        part: On a further page of such a stream: the one that it holds.
        missing: Rows of that part that the server reports and that did not come, asked for twice.
    """

    page: int
    page_size: int | None
    total: int | None
    session_id: str | None
    rows: Collection[Row]
    rejected: Collection[RejectedRow]
    repairs: int
    parts: Parts | None = None
    part: str | None = None
    missing: int = 0

    @property
    def served(self) -> int:
        """Rows that came, those rejected included."""
        return len(self.rows) + len(self.rejected)
