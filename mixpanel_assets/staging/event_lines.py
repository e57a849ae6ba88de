"""What becomes of a file of lines that are not all usual ones, as event_columns.py wants them.

They are read in Python: written the usual way if they hold an event, set aside if they hold something else, and refused
if they are no whole JSON, because then the export did not arrive as it was sent.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mixpanel_assets.mixpanel import json_text
from mixpanel_assets.mixpanel.export import BrokenExportError

Redact = Callable[[str], str]
_ERROR_TEXT_LENGTH = 300


@dataclass(frozen=True)
class SetAside:
    """A line that is not stored, or not as it came. `row` counts from 0."""

    row: int
    reason: str
    text: str


@dataclass(frozen=True)
class Straightened:
    """What became of a file's lines: those written, and those set aside; `repaired` of these are written as well."""

    lines: int
    set_aside: tuple[SetAside, ...]
    repaired: int


def straighten(file: Path, target: BinaryIO, what: str, redact: Redact) -> Straightened:
    """Write a file's events the usual way, as they were served otherwise. Of other lines nothing is kept, and nothing
    quoted, that `redact` has not seen: they are a server's own words, and could repeat the credentials.

    Raises:
        BrokenExportError: a line is no whole JSON, or tells of an error.
    """
    written = repaired = 0
    set_aside = []
    for row, line in _lines_of(file):
        usual = _usual(line, f"{what}: line {row + 1}", redact)
        if isinstance(usual, str):
            set_aside.append(SetAside(row, usual, redact(_readable(line))))
            continue
        content, repairs = usual
        target.write(content)
        written += 1
        if repairs:
            reason = "stored with U+FFFD in place of text that is not Unicode"
            set_aside.append(SetAside(row, reason, _readable(line)))
            repaired += 1
    return Straightened(written, tuple(set_aside), repaired)


def _lines_of(file: Path) -> Iterator[tuple[int, bytes]]:
    # Files opened as bytes end lines at \n only; a text may hold U+2028 and its like.
    with file.open("rb") as stream:
        for row, line in enumerate(stream):
            stripped = line.strip()
            if stripped:
                yield row, stripped


def _usual(line: bytes, what: str, redact: Redact) -> tuple[bytes, int] | str:
    """The line written the usual way and the repairs made, or the reason why it is no event."""
    text, repairs = json_text.repaired(line)
    try:
        members = json_text.read_object(text)
    except ValueError as error:
        if json_text.is_json(text):
            return "not an object"
        raise BrokenExportError(f"{what} is no whole JSON: {error}") from None
    if "error" in members and "event" not in members:
        raise BrokenExportError(f"{what} tells of an error: {_quoted(members['error'], redact)}")
    name = _name(members.get("event"))
    if name is None:
        return "no event name"
    properties = bytes(members["properties"]) if "properties" in members else b""
    if not properties.startswith(b"{"):
        return "no properties"
    return b'{"event":' + name + b',"properties":' + properties + b"}\n", repairs


def _name(event: json_text.Text | None) -> bytes | None:
    """The event's name as JSON text; a number counts as a name, an empty text does not."""
    if event is None:
        return None
    number = json_text.read_whole_number(event)
    if number is not None:
        return f'"{number}"'.encode()
    return bytes(event) if json_text.read_string(event) else None


def _quoted(error: json_text.Text, redact: Redact) -> str:
    # Redacted before it is cut: half a secret would not be found.
    text = redact(json_text.read_string(error) or bytes(error).decode())
    return " ".join(text.split())[:_ERROR_TEXT_LENGTH]


def _readable(line: bytes) -> str:
    return line.decode(errors="backslashreplace")
