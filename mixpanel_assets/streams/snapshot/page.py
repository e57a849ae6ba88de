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
    """

    page: int
    page_size: int | None
    total: int | None
    session_id: str | None
    rows: Collection[Row]
    rejected: Collection[RejectedRow]
    repairs: int

    @property
    def served(self) -> int:
        """Rows that came, those rejected included."""
        return len(self.rows) + len(self.rejected)
