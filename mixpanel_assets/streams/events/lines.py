"""What becomes of a file of lines that are not all usual ones, as columns.py wants them.

They are read in Python: written the usual way if they hold an event, rejected if they hold something else. An export
that ends with anything but a record, or holds lines and no event, is refused: it did not arrive as it was sent, or is
none.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from mixpanel_assets.client import json_text
from mixpanel_assets.client.server_text import ServerText, words_of
from mixpanel_assets.client.split_records import Record, RecordJoiner
from mixpanel_assets.streams.events.wire import BrokenExportError

# Where servers put their words, the most telling first.
_ERROR_MEMBERS = ("error", "message", "status", "code")


@dataclass(frozen=True)
class RejectedLine:
    """A line that is not stored, or not as it came. `row` counts from 0; `stored`: mended, it is stored as well."""

    row: int
    reason: str
    text: str
    stored: bool = False


@dataclass(frozen=True)
class RepairedLines:
    """What became of a file's lines: how many were written, those rejected, and how many of these were written
    repaired."""

    lines: int
    rejected: tuple[RejectedLine, ...]
    repaired: int


def repair_lines(file: Path, target: BinaryIO, what: str, texts: ServerText) -> RepairedLines:
    """Write a file's events the usual way, as they were served otherwise. Of other lines nothing is kept, and nothing
    quoted, that `texts` has not seen: they are a server's own words, and could repeat the credentials.

    Raises:
        BrokenExportError: a line tells of an error, the last one is no record, or none holds an event.
    """
    written = repaired = 0
    rejected = []
    unusual: Record | None = None
    for record in _records_of(file):
        usual = _usual(record, f"{what}: line {record.row + 1}", texts)
        unusual = record if isinstance(usual, str) and not _is_record(record) else None
        if isinstance(usual, str):
            rejected.append(RejectedLine(record.row, usual, texts.kept(_readable(record.text))))
            continue
        content, repair = usual
        target.write(content)
        written += 1
        if repair:
            text = texts.kept(_readable(record.text))
            rejected.append(RejectedLine(record.row, f"stored with {repair}", text, stored=True))
            repaired += 1
    if unusual is not None:
        raise BrokenExportError(f"{what}: the export ends with line {unusual.row + 1}, which is no event")
    if rejected and not written:
        raise BrokenExportError(f"{what}: the answer holds no event: {rejected[0].reason}")
    return RepairedLines(written, tuple(rejected), repaired)


def _records_of(file: Path) -> Iterator[Record]:
    # Files opened as bytes end lines at \n only; a text may hold U+2028 and its like.
    joiner = RecordJoiner()
    with file.open("rb") as stream:
        for row, line in enumerate(stream):
            stripped = line.strip().removeprefix(json_text.BYTE_ORDER_MARK)
            if stripped:
                yield from joiner.take(row, stripped)
    yield from joiner.finish()


def _usual(record: Record, what: str, texts: ServerText) -> tuple[bytes, str] | str:
    """The record written the usual way and the repair that it needed, if any, or the reason why it is no event."""
    text, repairs = json_text.repaired(record.text)
    try:
        members = json_text.read_object(text)
    except ValueError as error:
        if json_text.is_json(text):
            return "not an object"
        if record.text.startswith(b"{"):
            return "no whole JSON, nor with the lines after it"
        raise BrokenExportError(f"{what} is no whole JSON: {error}") from None
    told = next((members[name] for name in _ERROR_MEMBERS if name in members), None)
    if told is not None and "event" not in members:
        raise BrokenExportError(f"{what} tells of an error: {_quoted(told, texts)}")
    name = _name(members.get("event"))
    if name is None:
        return "no event name"
    properties = bytes(members["properties"]) if "properties" in members else b""
    if not properties.startswith(b"{"):
        return "no properties"
    content = b'{"event":' + name + b',"properties":' + properties + b"}\n"
    if record.parts > 1:
        return content, f"the {record.parts} lines joined that it came on"
    return content, "U+FFFD in place of text that is not Unicode" if repairs else ""


def _is_record(record: Record) -> bool:
    """Whether the text is a record, if maybe a bad one, and not a word of the server's own."""
    try:
        members = json_text.read_object(json_text.repaired(record.text)[0])
    except ValueError:
        return False
    return "event" in members or "properties" in members


def _name(event: json_text.Text | None) -> bytes | None:
    """The event's name as JSON text; a number counts as a name, an empty text does not."""
    if event is None:
        return None
    number = json_text.read_whole_number(event)
    if number is not None:
        return f'"{number}"'.encode()
    return bytes(event) if json_text.read_string(event) else None


def _quoted(error: json_text.Text, texts: ServerText) -> str:
    return texts.quoted(words_of(json_text.read_string(error) or bytes(error).decode()))


def _readable(line: bytes) -> str:
    return line.decode(errors="backslashreplace")
