"""The tables that hold properties, and what stands beside each. What is done with them is the other modules'."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """A table whose properties are catalogued.

    Attributes:
        table: Its name.
        catalogue: Name of its catalogue.
        view: Name of the view with a column for each property.
        columns: Its columns besides `properties`, which no property may be called.
        by_event: Whether its rows are events.
    """

    table: str
    catalogue: str
    view: str
    columns: tuple[str, ...]
    by_event: bool


PROFILES = Source(
    "profiles", "profile_properties", "profiles_wide", ("distinct_id", "last_seen", "synced_at"), by_event=False
)
EVENTS = Source(
    "events",
    "event_properties",
    "events_wide",
    ("event_name", "event_time", "distinct_id", "insert_id", "synced_at"),
    by_event=True,
)
