r"""What a server wrote, made fit for people: errors, logs, rejected rows, names of properties.

Three things are done to it. The credentials are taken out, in whatever encoding they were quoted. Characters that steer
a terminal or hide from the eye become escapes, those of JSON (`\u001b`), so that JSON still means the same. And what is
quoted in an error becomes one line of bounded length, of a page of HTML its title.

What the text means (retry or not) is read by http.py from what this hands out.
"""

import base64
import html
import json
import quopri
import re
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from html.entities import html5
from urllib.parse import unquote, unquote_plus

LONGEST_QUOTE = 300
_REDACTED = "***"
_WITHHELD = "(not shown: it quotes the credentials)"
# Controls; what turns the direction of reading; what has no width, or no shape of its own. Spaces are none of them.
_INVISIBLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\u2800\u3164\ud800-\uf8ff\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\ufffe\uffff"
    "\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U0010ffff]"
)
_WHITE_SPACE = re.compile("[ \t\r\n\xa0\u2000-\u200a\u202f\u205f\u3000]+")
# Bounded, since a hostile page could make a search without an end cost seconds.
_TITLE = re.compile(r"<(title|h1)\b[^>]{0,200}>(.{0,1000}?)</\1", re.IGNORECASE | re.DOTALL)
_TAG = re.compile(r"<[^<>]{0,1000}>")
_LOOKS_LIKE_MARKUP = re.compile(r"\s*<[!?a-z]", re.IGNORECASE)
_BEFORE_ADDRESS = re.compile(r"(?<=\w):(?=//)")
# Where servers put their words, the most telling first.
_REASONS = ("error", "message", "detail")
# A secret that is any shorter stands in too many words to be looked for in encodings.
_SHORTEST_ENCODED = 5
# What base64 is written with, itself escaped or not.
_IN_A_WORD = r"[A-Za-z0-9+/=_%\\-]"
_LINE_BREAK = r"(?:\s|\\[rn]|%0[ad]|=\r?\n)*"
_BACKSLASHED = re.compile(r"\\+(?:u\{?([0-9a-f]{1,6})\}?|x([0-9a-f]{2})|0?([0-7]{2,3})|(.))", re.IGNORECASE)
_HIGH_BYTES = re.compile("[\x80-\xff]{2,}")
_READABLE = r"[\t\r\n -~\x80-\xff]"
_UNESCAPED = {"n": "\n", "r": "\r", "t": "\t"}
_MOST_DECODINGS = 64


def visible(text: str) -> str:
    """The text with escapes in place of control characters and of others that cannot be seen."""
    return _INVISIBLE.sub(lambda match: json.dumps(match[0])[1:-1], text)


def one_line(text: str, most: int = LONGEST_QUOTE) -> str:
    """The text on one line, visible, cut after `most` characters."""
    line = visible(_WHITE_SPACE.sub(" ", text).strip(" "))
    return line if len(line) <= most else line[:most] + "..."


def reason_in(body: str) -> str:
    """What the body of an error says: a member of its JSON, the title of its HTML, else all of it."""
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError):
        return words_of(body)
    said = next((payload[name] for name in _REASONS if payload.get(name)), None) if isinstance(payload, dict) else None
    if said is None:
        return body
    return words_of(said) if isinstance(said, str) else json.dumps(said, ensure_ascii=False)


class ServerText:
    """The texts of one server, which knows these credentials and may quote them."""

    def __init__(self, secret: str) -> None:
        self._as_given = secret
        self._secret = secret.lower().replace("\\", "")
        encoded = secret.encode()
        self._hex = encoded.hex()
        self._cores = tuple(_base64_cores(encoded)) if len(encoded) >= _SHORTEST_ENCODED else ()
        # No encoding is shorter than what it encodes.
        least = max(_SHORTEST_ENCODED, len(secret))
        self._word = re.compile(f"{_IN_A_WORD}{{{least},}}")
        self._readable = re.compile(f"{_READABLE}{{{least},}}")

    def quoted(self, text: str) -> str:
        """For an error: redacted, visible, on one line, cut, and without addresses that a terminal or the UI would make
        links. Redacted first: half a secret would not be found.
        """
        return one_line(_BEFORE_ADDRESS.sub(": ", self.redacted(text)))

    def kept(self, text: str) -> str:
        """For what is kept whole, such as a row that is rejected: redacted and visible."""
        return visible(self.redacted(text))

    def redacted(self, text: str) -> str:
        """The text without the secret: as it is, in base64 (at any place within), in hex, and escaped in the ways of
        URLs, HTML, JSON and others, also several times over.

        What is decoded tells whether it is there. Then it is cut out as it is spelled, else with the word it is in, and
        if it still is there, nothing is shown.
        """
        if not self._as_given or not self._is_in(text):
            return text
        text = self._spellings.sub(_REDACTED, text)
        if self._is_in(text):
            text = self._word.sub(lambda word: _REDACTED if self._is_in(word[0]) else word[0], text)
        return _WITHHELD if self._is_in(text) else text

    @cached_property  # Takes some 10 ms, and few texts need it.
    def _spellings(self) -> re.Pattern[str]:
        return re.compile("|".join(_spellings(self._as_given, self._cores)), re.IGNORECASE)

    def _is_in(self, text: str) -> bool:
        return any(self._is_spelled_in(form) for form in self._decodings(text))

    def _decodings(self, text: str) -> Iterator[str]:
        """The text, and what it is when it is decoded, in any order and as often as something changes."""
        seen = [text]
        for form in seen:
            yield form
            for decode in (*_DECODERS, self._without_base64):
                decoded = decode(form)
                if decoded not in seen and len(seen) < _MOST_DECODINGS:
                    seen.append(decoded)

    def _without_base64(self, text: str) -> str:
        return self._word.sub(self._from_base64, text)

    def _from_base64(self, word: re.Match[str]) -> str:
        """The texts that the word holds in base64, wherever in it that begins; the word itself if there is none."""
        characters = re.sub("[^A-Za-z0-9+/]", "", word[0].replace("-", "+").replace("_", "/"))
        found: list[str] = []
        for begin in range(4):
            whole = characters[begin:]
            # One character more would hold no whole byte.
            whole = whole[:-1] if len(whole) % 4 == 1 else whole
            decoded = base64.b64decode(whole + "=" * (-len(whole) % 4)).decode("latin-1")
            found += self._readable.findall(decoded)
        return " ".join(found) or word[0]

    def _is_spelled_in(self, text: str) -> bool:
        lower = text.lower().replace("\\", "")
        if self._secret in lower or self._secret in " ".join(lower.split()):
            return True
        if not self._cores:
            return False
        compact = re.sub(r"\s+", "", text)
        standard = compact.replace("-", "+").replace("_", "/")
        return any(core in standard for core in self._cores) or self._hex in compact.lower().replace(":", "")


NO_SECRETS = ServerText("")


def words_of(text: str) -> str:
    """The title of a page of HTML, or its first heading, or what stands between its tags; any other text as it is."""
    if not _LOOKS_LIKE_MARKUP.match(text):
        return text
    titles = (html.unescape(_TAG.sub(" ", match[2])) for match in _TITLE.finditer(text))
    return next((title for title in titles if title.strip()), None) or html.unescape(_TAG.sub(" ", text))


def _base64_cores(secret: bytes) -> Iterator[str]:
    """What base64 makes of the secret, wherever in the encoded text it begins: the characters that are its own."""
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + secret).decode()
        yield encoded[-(-8 * before // 6) : 8 * (before + len(secret)) // 6]


def _spellings(secret: str, cores: tuple[str, ...]) -> Iterator[str]:
    """Patterns, one for each way to encode the whole; within it each character is spelled in any way."""
    yield "".join(map(_ways, secret))
    for core in cores:
        # The characters beside hold the rest of its bits.
        yield "[a-z0-9+/_-]{0,2}" + _LINE_BREAK.join(map(_ways_in_base64, core)) + "[a-z0-9+/_-]{0,2}={0,2}"
    if cores:
        yield "[\\s:]*".join(f"(?:0x|\\\\+x)?{byte:02x}" for byte in secret.encode())


def _ways_in_base64(character: str) -> str:
    other = {"+": "-", "/": "_"}.get(character)
    return f"(?:{_ways(character)}|{other})" if other else _ways(character)


def _ways(character: str) -> str:
    """A pattern of the ways to write a character: itself, and the escapes of URLs, HTML, JSON, C and mail."""
    code = ord(character)
    ways = [r"\\*" + re.escape(character), rf"&(?:amp;)*#0*{code};?", rf"&(?:amp;)*#x0*{code:x};?"]
    ways += [rf"&(?:amp;)*{re.escape(name)}" for name, meant in html5.items() if meant == character]
    ways.append(rf"\\+u\{{0*{code:x}\}}")
    units = character.encode("utf-16-be", "surrogatepass")
    ways.append("".join(rf"\\+u{units[i : i + 2].hex()}" for i in range(0, len(units), 2)))
    for encoding in ("utf-8", "latin-1"):
        encoded = character.encode(encoding, "ignore")
        if encoded:
            ways += ["".join(f"{mark}{byte:02x}" for byte in encoded) for mark in ("%(?:25)*", "=", r"\\+x")]
            ways.append("".join(rf"\\+0*{byte:o}" for byte in encoded))
    if character == " ":
        ways += [r"\s+", r"\+"]
    return f"(?:{'|'.join(ways)})"


def _as_utf_8(text: str) -> str:
    """Bytes that were read one by one, put together: `Ã¶` is `ö`."""
    return text if text.isascii() else _HIGH_BYTES.sub(_from_utf_8, text)


def _from_utf_8(characters: re.Match[str]) -> str:
    return characters[0].encode("latin-1").decode(errors="replace")


def _without_backslashes(text: str) -> str:
    return _BACKSLASHED.sub(_unescaped, text) if "\\" in text else text


def _unescaped(match: re.Match[str]) -> str:
    for digits, base in ((match[1], 16), (match[2], 16), (match[3], 8)):
        if digits:
            code = int(digits, base)
            return chr(code) if code < 0x110000 else match[0]
    return _UNESCAPED.get(match[4], match[4] or "")


def _without_quoted_printable(text: str) -> str:
    if "=" not in text:
        return text
    return quopri.decodestring(text.encode("utf-8", "surrogatepass")).decode(errors="replace")


def _as_latin_1(text: str) -> str:
    return unquote(text, "latin-1") if "%" in text else text


_DECODERS: tuple[Callable[[str], str], ...] = (
    unquote,
    unquote_plus,
    _as_latin_1,
    _as_utf_8,
    html.unescape,
    _without_backslashes,
    _without_quoted_printable,
)


def quoted(names: Sequence[str]) -> str:
    """Names in a line, without what a terminal would act on."""
    return " or ".join(json.dumps(name) if not name.isprintable() else f'"{name}"' for name in names)
