"""What the columns of the tables mean, for Dagster's catalog. The tables themselves are made in *_table.py."""

import dagster as dg

_SYNCED_AT = "When this row was asked for."


def _column(name: str, type_: str, description: str, *, nullable: bool = True) -> dg.TableColumn:
    return dg.TableColumn(name, type_, description, dg.TableColumnConstraints(nullable=nullable))


PROFILES = dg.TableSchema(
    [
        _column("distinct_id", "VARCHAR", "The user's or the group's id in Mixpanel, one row each.", nullable=False),
        _column("properties", "JSON", "All properties of the profile, exactly as Mixpanel serves them."),
        _column("last_seen", "TIMESTAMP", "When Mixpanel last updated the profile; NULL where it does not say."),
        _column("synced_at", "TIMESTAMPTZ", _SYNCED_AT, nullable=False),
        _column(
            "sync_filter",
            "VARCHAR",
            "The filter, as JSON, of the syncs that alone brought this row and may remove it; else NULL.",
        ),
        _column("data_group_id", "VARCHAR", "The group that this is a profile of; NULL for users."),
    ]
)
EVENTS = dg.TableSchema(
    [
        _column("event_name", "VARCHAR", "The event's name."),
        _column("event_time", "TIMESTAMP", "When it happened, as Mixpanel serves it.", nullable=False),
        _column("distinct_id", "VARCHAR", "Whose event it is."),
        _column("insert_id", "VARCHAR", "Mixpanel's id for telling copies apart; NULL where the sender gave none."),
        _column("properties", "JSON", "All properties of the event, exactly as Mixpanel serves them."),
        _column("synced_at", "TIMESTAMPTZ", _SYNCED_AT, nullable=False),
    ]
)
