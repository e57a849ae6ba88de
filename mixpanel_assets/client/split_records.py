"""A record of an export that came on several lines, put together again.

Belongs here: which lines are parts of one record. Does not belong here: what a record says (streams/events/lines.py).
"""

from dataclasses import dataclass

from mixpanel_assets.client import json_text

# An event has a megabyte at most: what is longer is no record, however it goes on.
_LONGEST_RECORD_BYTES = 8 << 20


@dataclass(frozen=True)
class Record:
    """Lines that belong together: `row` is the first of them, from 0; `parts` tells how many.

    `whole` is whether their text is one JSON value; if not, nothing that came makes it one.
    """

    row: int
    text: bytes
    parts: int
    whole: bool


class RecordJoiner:
    """Takes the lines of an export in order, and gives them back as records.

    A line that is no whole JSON begins a record if it begins an object; the lines after it are added until it is whole,
    or until a line comes that is whole by itself.
    """

    def __init__(self) -> None:
        self._begun: Record | None = None

    @property
    def is_idle(self) -> bool:
        """Whether no record is begun."""
        return self._begun is None

    def take(self, row: int, line: bytes) -> list[Record]:
        """The records that are at an end with this line."""
        alone = Record(row, line, 1, whole=_is_whole(line))
        begun = self._begun
        if begun is None:
            if alone.whole or not line.startswith(b"{"):
                return [alone]
            self._begun = alone
            return []
        if alone.whole:
            self._begun = None
            return [begun, alone]
        text = begun.text + line
        joined = Record(begun.row, text, begun.parts + 1, whole=_is_whole(text))
        is_over = joined.whole or len(text) > _LONGEST_RECORD_BYTES
        self._begun = None if is_over else joined
        return [joined] if is_over else []

    def finish(self) -> list[Record]:
        """The record that the last line left begun."""
        begun, self._begun = self._begun, None
        return [] if begun is None else [begun]


def _is_whole(text: bytes) -> bool:
    # What is no Unicode text is mended later, and makes no record less whole.
    return json_text.is_json(json_text.repaired(text)[0])
