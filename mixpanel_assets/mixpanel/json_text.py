"""JSON read without being rewritten: values together with the exact text that was served.

`json.loads` followed by `json.dumps` changes 1.10 to 1.1, 1e400 to Infinity and merges repeated keys. Here the standard
library's scanner only finds where each value ends, and the text between is kept. What the values mean is engage.py's.
"""

import json
import re
from collections.abc import Collection
from typing import Any, NamedTuple

# Integers stay text: Python refuses those of more than 4300 digits, and nothing here calculates with them.
_scan = json.JSONDecoder(parse_int=str).raw_decode
_SPACE = re.compile(r"[ \t\n\r]*")
_ESCAPED_SURROGATES = re.compile(
    r"(?P<keep>\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)
_RAW_SURROGATES = re.compile("[\ud800-\udfff]")


class Value(NamedTuple):
    """A value (integers as text) and the exact JSON that it was read from."""

    value: Any
    text: str


def decode(body: bytes) -> str:
    """The body as text. A byte that is not UTF-8 becomes a lone surrogate, which `without_lone_surrogates` replaces."""
    return body.decode("utf-8", errors="surrogateescape")


def read_object(text: str, arrays: Collection[str] = ()) -> dict[str, Value]:
    """The members of a JSON object; an array named in `arrays` comes as a list of Values.

    Raises:
        ValueError: not one whole JSON object.
    """
    found: dict[str, Value] = {}
    position = _after(text, _skip(text, 0), "{")
    closed = text[position : position + 1] == "}"
    while not closed:
        key, position = _read_key(text, position)
        if key in arrays and text[position : position + 1] == "[":
            values, end = _read_array(text, position)
            found[key] = Value(values, "")
        else:
            value, end = _scan(text, position)
            found[key] = Value(value, text[position:end])
        closed, position = _next_item(text, end, "}")
    if _skip(text, position + 1) != len(text):
        raise ValueError(f"more text after the object at character {position + 1}")
    return found


def without_lone_surrogates(text: str) -> str:
    """The text with U+FFFD for half surrogate pairs and bytes that were not UTF-8: no database stores those as text."""
    if "\\ud" in text or "\\uD" in text:
        text = _ESCAPED_SURROGATES.sub(lambda match: match["keep"] or "\\ufffd", text)
    return text if text.isascii() else _RAW_SURROGATES.sub("\ufffd", text)


def _read_array(text: str, position: int) -> tuple[list[Value], int]:
    values = []
    position = _after(text, position, "[")
    closed = text[position : position + 1] == "]"
    while not closed:
        value, end = _scan(text, position)
        values.append(Value(value, text[position:end]))
        closed, position = _next_item(text, end, "]")
    return values, position + 1


def _read_key(text: str, position: int) -> tuple[str, int]:
    if text[position : position + 1] != '"':
        raise ValueError(f"a name expected at character {position}")
    key, position = _scan(text, position)
    return key, _after(text, _skip(text, position), ":")


def _next_item(text: str, position: int, closing: str) -> tuple[bool, int]:
    position = _skip(text, position)
    if text[position : position + 1] == closing:
        return True, position
    return False, _after(text, position, ",")


def _after(text: str, position: int, character: str) -> int:
    if text[position : position + 1] != character:
        raise ValueError(f"{character!r} expected at character {position}")
    return _skip(text, position + 1)


def _skip(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    return match.end() if match else position
