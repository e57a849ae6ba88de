"""What one request may take: seconds and bytes, as settings.

Belongs here: the figures. Does not belong here: who holds a request to them (request_watch.py, answer.py).
"""

from dataclasses import dataclass

MB = 1_000_000


@dataclass(frozen=True)
class Times:
    """Longest silence and longest whole request, in seconds; `setting` is how the names of both settings begin."""

    setting: str
    silence: float
    whole: float


@dataclass(frozen=True)
class RequestLimits:
    """Limits of one request; sizes are of the answer unpacked, in MB of 1,000,000 bytes.

    Attributes:
        connect_timeout_seconds: Until the connection stands.
        query_read_timeout_seconds: Silence of a page: before its first byte, and between two.
        export_read_timeout_seconds: Silence of an export. Mixpanel's own client waits as long: a large export that
            is not cached may take minutes before its first byte.
        query_deadline_seconds: A page, from its request to its last byte.
        export_deadline_seconds: An export, likewise.
        max_page_mb: A page.
        max_line_mb: One line of an export, one row of a page.
        max_export_mb: One export.
    """

    connect_timeout_seconds: float = 10.0
    query_read_timeout_seconds: float = 120.0
    export_read_timeout_seconds: float = 1200.0
    query_deadline_seconds: float = 600.0
    export_deadline_seconds: float = 7200.0
    max_page_mb: int = 1024
    max_line_mb: int = 64
    max_export_mb: int = 20480

    def times(self, *, of_export: bool) -> Times:
        """How long a request of one of the two APIs may take."""
        if of_export:
            return Times("export", self.export_read_timeout_seconds, self.export_deadline_seconds)
        return Times("query", self.query_read_timeout_seconds, self.query_deadline_seconds)


DEFAULT_LIMITS = RequestLimits()
