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

    @property
    def typed_table(self) -> str:
        """Name of the table that has what the view shows."""
        return self.view.removesuffix("_wide") + "_typed"


PROFILES = Source(
    "profiles",
    "profiles",
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
# All kinds of groups together; each is catalogued by itself, as a source of its own.
GROUPS = Source(
    "groups",
    "groups",
    "groups",
    "group_properties",
    "groups_wide",
    ("group_key", "group_id", "last_seen", "synced_at"),
    by_event=False,
)
# Those that have a catalogue as an asset.
SOURCES = (PROFILES, EVENTS, GROUPS)


def group(data_group_id: str) -> Source:
    """The groups of one kind, where an id of -1 makes the name `group_minus_1`."""
    name = f"group_{data_group_id.replace('-', 'minus_')}"
    rows = f"(select group_id, properties, last_seen, synced_at from groups where data_group_id = '{data_group_id}')"
    columns = ("group_id", "last_seen", "synced_at")
    return Source("groups", rows, name, f"{name}_properties", f"{name}_wide", columns, by_event=False)
