"""One date range from the raw export: the request, and its body as a file that is proven to have ended.

A raw export can break off inside an HTTP 200. So a body counts only when its framing or its gzip stream says that it is
complete, and when it ends with a whole line. What the lines say is event_lines.py's.
"""

import json
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import requests
import urllib3
from isal import isal_zlib
from isal.igzip_lib import IsalError

from mixpanel_assets.errors import Cancelled, ConfigurationError, TransientError
from mixpanel_assets.mixpanel.apis import EXPORTS
from mixpanel_assets.mixpanel.http import Request
from mixpanel_assets.mixpanel.property_filter import KEEP_ALL, PropertyFilter
from mixpanel_assets.mixpanel.server_text import NO_SECRETS, ServerText

# Each block is a turn at the interpreter lock: with a quarter of this three exports at once take a third longer.
_BLOCK = 1 << 20
_ANY_GZIP = isal_zlib.MAX_WBITS | 16


class BrokenExportError(TransientError):
    """An export that is not whole, whatever its status said."""


class Sink(Protocol):
    """Where the bytes go."""

    def write(self, block: bytes, /) -> object:
        """Take the next bytes."""


@dataclass(frozen=True)
class EventsQuery:
    """Which events. None means: all.

    Attributes:
        events: Only events of these names.
        where: Filter expression, such as `properties["plan"] == "pro"`.
        kept: Which of the properties that come are kept.
        source: Whose events, as the client says; None where it was not noted.
    """

    events: tuple[str, ...] | None = None
    where: str | None = None
    kept: PropertyFilter = KEEP_ALL
    source: str | None = None

    def covers(self, other: "EventsQuery") -> bool:
        """Whether an export brings all events that another would bring; which properties are kept is another matter."""
        names = self.events is None or (other.events is not None and {*other.events} <= {*self.events})
        return names and self.where in (None, other.where) and other.source in (None, self.source)

    def check(self) -> None:
        """Refuse what Mixpanel would misunderstand or silently ignore.

        Raises:
            ConfigurationError: one line that names the setting.
        """
        if self.where is not None and not self.where.strip():
            raise ConfigurationError("where is empty: leave it out to fetch all events")
        if self.events is not None and not all(name.strip() for name in self.events or ("",)):
            raise ConfigurationError("events must name at least one event, and no empty names")
        self.kept.check_for_events()

    def params(self) -> dict[str, str]:
        """The query as URL parameters."""
        params = {}
        if self.events is not None:
            params["event"] = json.dumps(list(self.events))
        if self.where is not None:
            params["where"] = self.where
        return params


def export_request(export_url: str, query: EventsQuery, from_date: str, to_date: str) -> Request:
    """The request for a range of days, both inclusive. Times come in milliseconds, the finest that Mixpanel keeps."""
    days = {"from_date": from_date, "to_date": to_date, "time_in_ms": "true"}
    return Request(
        EXPORTS,
        "GET",
        f"{export_url}/export",
        what=f"events of {from_date} to {to_date}" if from_date != to_date else f"events of {from_date}",
        params={**days, **query.params()},
        # The only compression whose end can be told.
        headers={"Accept-Encoding": "gzip"},
    )


def save_body(
    response: requests.Response, what: str, file: Sink, stop: threading.Event, texts: ServerText = NO_SECRETS
) -> int:
    """Write the body to a file as it comes, and close the response. Returns the number of lines.

    `texts` are those of the server.

    Raises:
        BrokenExportError: the body broke off, or nothing proves that it did not.
        Cancelled: the run was asked to end.
    """
    lines, last = 0, b"\n"
    with response:
        for block in _content(response, what, texts):
            if stop.is_set():
                raise Cancelled(f"{what}: cancelled while it came")
            file.write(block)
            lines += block.count(b"\n")
            last = block[-1:]
    if last != b"\n":
        raise BrokenExportError(f"{what}: the export broke off amid line {lines + 1}")
    return lines


def _content(response: requests.Response, what: str, texts: ServerText) -> Iterator[bytes]:
    try:
        yield from _decoded(response, what, texts)
    # ValueError is what urllib3 leaves of a chunk with a negative size.
    except (urllib3.exceptions.HTTPError, IsalError, ValueError) as error:  # type: ignore[misc]  # its stub: no class
        raise BrokenExportError(f"{what}: the export broke off: {texts.quoted(str(error))}") from None


def _decoded(response: requests.Response, what: str, texts: ServerText) -> Iterator[bytes]:
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    # Not response.iter_content: it takes a gzip stream that stops early for a complete one.
    blocks = response.raw.stream(_BLOCK, decode_content=False)
    chunked = response.headers.get("Transfer-Encoding", "").lower() == "chunked"
    # The length as urllib3 holds the body to it: none where Content-Length is no number, or a negative one.
    framed = chunked or response.raw.length_remaining is not None
    if not framed:
        raise BrokenExportError(f"{what}: the answer has neither length nor chunks, so its end cannot be told")
    if encoding == "gzip":
        return _unzipped(blocks, what)
    if encoding not in ("", "identity"):
        raise BrokenExportError(
            f"{what}: the answer is compressed as {texts.quoted(encoding)}, which was not asked for"
        )
    return (block for block in blocks if block)


def _unzipped(blocks: Iterable[bytes], what: str) -> Iterator[bytes]:
    """The content of one or more gzip members, none for an empty body; the checksum of each is verified."""
    member = isal_zlib.decompressobj(_ANY_GZIP)
    begun = False
    for block in blocks:
        data = block
        while data:
            if member.eof:
                member, begun = isal_zlib.decompressobj(_ANY_GZIP), False
            plain = member.decompress(data, _BLOCK)
            begun = True
            if plain:
                yield plain
            data = member.unused_data if member.eof else member.unconsumed_tail
    while begun and not member.eof:
        plain = member.decompress(member.unconsumed_tail, _BLOCK)
        if not plain:
            raise BrokenExportError(f"{what}: the compressed answer stops before its end")
        yield plain
