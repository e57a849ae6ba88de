"""One date range from the raw export: the request, and its body as a file that is proven to have ended.

A raw export can break off inside an HTTP 200. So a body counts only when its framing or its gzip stream says that it is
complete, and when it ends with a whole line. What the lines say is event_lines.py's.
"""

import json
from dataclasses import dataclass
from typing import Protocol

from mixpanel_assets.errors import ConfigurationError
from mixpanel_assets.mixpanel.answer import Answer, BrokenAnswerError, TooLargeError
from mixpanel_assets.mixpanel.apis import EXPORTS
from mixpanel_assets.mixpanel.http import Request
from mixpanel_assets.mixpanel.property_filter import KEEP_ALL, PropertyFilter
from mixpanel_assets.mixpanel.request_limits import DEFAULT_LIMITS, MB, RequestLimits


class BrokenExportError(BrokenAnswerError):
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
