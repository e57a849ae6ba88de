"""Whose properties are catalogued, and what stands beside them. What is done with them is the other modules'."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """Rows whose properties are catalogued.

    Attributes:
        table: Name of the table that holds them.
        rows: SQL for them: the table, or a query in parentheses.
        owner: Whose the names of the columns are.
        catalogue: Name of its catalogue.
        view: Name of the view with a column for each property.
        columns: Its columns besides `properties`, which no property may be called.
        by_event: Whether its rows are events.
    """

    table: str
    rows: str
    owner: str
    catalogue: str
    view: str
    columns: tuple[str, ...]
    by_event: bool


PROFILES = Source(
    "profiles",
    "(from profiles where data_group_id is null)",
    "profiles",
    "profile_properties",
    "profiles_wide",
    ("distinct_id", "last_seen", "synced_at"),
    by_event=False,
)
EVENTS = Source(
    "events",
    "events",
    "events",
    "event_properties",
    "events_wide",
    ("event_name", "event_time", "distinct_id", "insert_id", "synced_at"),
    by_event=True,
)
# Those that have a catalogue as an asset; groups are catalogued beside the profiles.
SOURCES = (PROFILES, EVENTS)


def group(data_group_id: str) -> Source:
    """The profiles of one group, where an id of -1 makes the name `group_minus_1`."""
    name = f"group_{data_group_id.replace('-', 'minus_')}"
    rows = (
        "(select distinct_id as group_id, properties, last_seen, synced_at "
        f"from profiles where data_group_id = '{data_group_id}')"
    )
    columns = ("group_id", "last_seen", "synced_at")
    return Source("profiles", rows, name, f"{name}_properties", f"{name}_wide", columns, by_event=False)
