"""JSON read without being rewritten: values as the exact text that was served.

Decoding and encoding again changes 1.10 to 1.1, 1e400 to Infinity and merges repeated names. Here msgspec finds where
each value ends (some 2 ms for a page of 700 kB, where the standard library's scanner takes 30) and the text stays.
What the values mean is the streams'.
"""

import re
from typing import TypeVar

import msgspec

Text = msgspec.Raw

T = TypeVar("T")

# Some writers of UTF-8 begin with it; it belongs to no text.
BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_object = msgspec.json.Decoder(dict[str, Text])
_array = msgspec.json.Decoder(list[Text])
_string = msgspec.json.Decoder(str)
_WHOLE_NUMBER = re.compile(rb"-?\d+")
_ANY_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_SURROGATES = re.compile(
    rb"(?P<keep>\\\\|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2})|\\u[dD][89a-fA-F][0-9a-fA-F]{2}"
)


def read_object(text: bytes | Text) -> dict[str, Text]:
    """The members of a JSON object, each as its exact text; of a repeated name the last.

    Raises:
        ValueError: not one whole JSON object.
    """
    return _read(_object, text)


def read_array(text: bytes | Text) -> list[Text]:
    """The elements of a JSON array, each as its exact text.

    Raises:
        ValueError: not one whole JSON array.
    """
    return _read(_array, text)


def is_json(text: bytes) -> bool:
    """Whether the text is one whole JSON value; one that is nested too deep to be read is taken for none."""
    try:
        msgspec.json.decode(text)
    except (msgspec.MsgspecError, RecursionError):
        return False
    return True


def read_string(text: Text) -> str | None:
    """The string that the text is, or None if it is something else."""
    return _string.decode(text) if bytes(text).startswith(b'"') else None


def read_whole_number(text: Text) -> str | None:
    """The digits of the integer that the text is, of any length, or None if it is something else."""
    return bytes(text).decode() if _WHOLE_NUMBER.fullmatch(bytes(text)) else None


def repaired(body: bytes) -> tuple[bytes, int]:
    """The body without a byte-order mark, with U+FFFD for what is no Unicode text, and how often that was needed.

    Halves of surrogate pairs, written as escapes, and bytes that are not UTF-8: no database stores those as text.
    """
    repairs = 0
    body = body.removeprefix(BYTE_ORDER_MARK)
    if _ANY_SURROGATE.search(body):
        halves = 0

        def replace(match: re.Match[bytes]) -> bytes:
            nonlocal halves
            if match["keep"] is not None:
                return match["keep"]
            halves += 1
            return rb"\ufffd"

        body = _SURROGATES.sub(replace, body)
        repairs += halves
    try:
        body.decode()
    except UnicodeDecodeError:
        text = body.decode(errors="replace")
        repairs += text.count("\ufffd") - body.count("\ufffd".encode())
        body = text.encode()
    return body, repairs


def _read(decoder: "msgspec.json.Decoder[T]", text: bytes | Text) -> T:
    try:
        return decoder.decode(text)
    except RecursionError:
        raise ValueError("nested too deep") from None
