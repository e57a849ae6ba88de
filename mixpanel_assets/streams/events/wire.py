"""One date range from the raw export: the request, and its body as a file that is proven to have ended.

A raw export can break off inside an HTTP 200. So a body counts only when its framing or its gzip stream says that it is
complete, and when it ends with a whole line. What the lines say is lines.py's.
"""

from typing import Protocol

from mixpanel_assets.client.answer import Answer, BrokenAnswerError, TooLargeError
from mixpanel_assets.client.apis import EXPORTS
from mixpanel_assets.client.http import Request
from mixpanel_assets.client.request_limits import DEFAULT_LIMITS, MB, RequestLimits
from mixpanel_assets.streams.events.query import EventsQuery


class BrokenExportError(BrokenAnswerError):
    """An export that is not whole, whatever its status said."""


class Sink(Protocol):
    """Where the bytes go."""

    def write(self, block: bytes, /) -> object:
        """Take the next bytes."""


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


def save_body(answer: Answer, file: Sink, limits: RequestLimits = DEFAULT_LIMITS) -> int:
    """Write the body to a file as it comes, and close the answer. Returns the number of lines.

    Raises:
        BrokenAnswerError: the body broke off, or nothing proves that it did not.
        TooSlowError: it did not come in time.
        TooLargeError: it, or a line of it, is larger than is allowed.
        Cancelled: the run was asked to end.
    """
    lines, last, line_bytes = 0, b"\n", 0
    with answer:
        for block in answer.blocks(limits.max_export_mb, "ask for fewer days, or raise max_export_mb", framed=True):
            ends = block.count(b"\n")
            first = block.find(b"\n") if ends else len(block)
            longest = line_bytes + first
            if longest > limits.max_line_mb * MB:
                raise TooLargeError(
                    f"{answer.what}: line {lines + 1} is longer than {limits.max_line_mb} MB: is this an export? If it "
                    "is, raise max_line_mb"
                )
            line_bytes = len(block) - block.rfind(b"\n") - 1 if ends else longest
            file.write(block)
            lines += ends
            last = block[-1:]
    if last != b"\n":
        raise BrokenExportError(f"{answer.what}: the export broke off amid line {lines + 1}")
    return lines
