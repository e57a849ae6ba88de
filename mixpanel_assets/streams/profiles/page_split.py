"""A page that is too large for memory, cut into runs of whole rows while it comes.

A cut is tried where one row seems to end and another to begin (`},{"$distinct_id":`). That may also be amid a row; but
what lies before it is a whole array only if it is none: a part of an array that ends inside of a string, an object or
an inner array is no JSON. So a cut that is wrong is noticed, and the run goes on to a later one.
"""

import re
from collections.abc import Callable, Iterator
from typing import TypeVar

from mixpanel_assets.client import json_text

T = TypeVar("T")

# Smaller pages are read at once. Also how much is taken for one run of rows.
AT_ONCE_BYTES = 4 << 20
_RESULTS = re.compile(rb'"results"\s*:\s*\[')
_FIRST_NAME = re.compile(rb'\s*\{\s*("(?:[^"\\]|\\.)*")')
_USUAL_NAMES = (b'"$distinct_id"', b'"$properties"')
# So many places are tried for the beginning and the end of the rows. There are few brackets beside the rows' own.
_TRIES = 20


class RowTooLargeError(ValueError):
    """No row ends within the bytes that a row may have."""


class PageSplit:
    """Takes a page apart. `members` is what it says besides its rows, once `runs` has come to its end.

    Args:
        begun: The first bytes.
        blocks: Those that follow.
        most_row_bytes: How long a row may be.
    """

    def __init__(self, begun: bytes, blocks: Iterator[bytes], most_row_bytes: int) -> None:
        self.members: dict[str, json_text.Text] = {}
        self.bytes_read = len(begun)
        self._blocks = blocks
        self._most = most_row_bytes + AT_ONCE_BYTES
        self._text = begun.removeprefix(json_text.BYTE_ORDER_MARK)

    def runs(self, read: Callable[[bytes], T]) -> Iterator[T]:
        """What `read` makes of each run of rows, an array in JSON; it raises ValueError on what is none.

        Raises:
            RowTooLargeError: a row is longer than is allowed.
            ValueError: this is no page.
        """
        self._skip_head()
        border = self._border()
        wanted = AT_ONCE_BYTES
        while self._fill(wanted):
            places = [(match.start() + 1, match.end()) for match in border.finditer(self._text)]
            if places:
                end, begin = places[-1]
                try:
                    run = read(b"[" + self._text[:end] + b"]")
                except ValueError:
                    wanted = len(self._text) + AT_ONCE_BYTES
                else:
                    self._text = self._text[begin:]
                    wanted = AT_ONCE_BYTES
                    yield run
                    del run
            else:
                wanted = len(self._text) + AT_ONCE_BYTES
            if wanted > self._most + AT_ONCE_BYTES:
                raise ValueError("its rows are no JSON") if places else RowTooLargeError
        yield self._last_run(read)

    def _skip_head(self) -> None:
        for match in list(_RESULTS.finditer(self._text))[:_TRIES]:
            head, _ = json_text.repaired(self._text[: match.start()] + b'"results":[]}')
            try:
                self.members = json_text.read_object(head)
            except ValueError:
                continue
            self._text = self._text[match.end() :]
            return
        raise ValueError("it has no results")

    def _border(self) -> re.Pattern[bytes]:
        first = _FIRST_NAME.match(self._text)
        names = {*_USUAL_NAMES, *([first[1]] if first else [])}
        return re.compile(rb"\}\s*,(?=\s*\{\s*(?:" + b"|".join(map(re.escape, sorted(names))) + rb")\s*:)")

    def _fill(self, wanted: int) -> bool:
        """Read on until so many bytes are here; whether there are."""
        taken = [self._text]
        size = len(self._text)
        while size < wanted and (block := next(self._blocks, None)) is not None:
            taken.append(block)
            size += len(block)
            self.bytes_read += len(block)
        self._text = b"".join(taken)
        return size >= wanted

    def _last_run(self, read: Callable[[bytes], T]) -> T:
        end = len(self._text)
        for _ in range(_TRIES):
            end = self._text.rfind(b"]", 0, end)
            if end < 0:
                break
            tail, _repairs = json_text.repaired(b'{"results":[]' + self._text[end + 1 :])
            try:
                members = json_text.read_object(tail)
                run = read(b"[" + self._text[:end] + b"]")
            except ValueError:
                continue
            self.members |= members
            return run
        raise ValueError("its end is no JSON")
