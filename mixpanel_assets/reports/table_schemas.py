"""What the columns of the tables mean, for Dagster's catalog. The tables themselves are made in *_table.py."""

from collections.abc import Iterable

import dagster as dg

from mixpanel_assets.storage.columns import Column

_SYNCED_AT = "When this row was asked for."


def schema(columns: Iterable[Column]) -> dg.TableSchema:
    """The columns of a table as Dagster shows them."""
    return dg.TableSchema([_column(each.name, each.type, each.description, nullable=each.nullable) for each in columns])


def _column(name: str, type_: str, description: str, *, nullable: bool = True) -> dg.TableColumn:
    return dg.TableColumn(name, type_, description, dg.TableColumnConstraints(nullable=nullable))


EVENTS = dg.TableSchema(
    [
        _column("event_name", "VARCHAR", "The event's name."),
        _column("event_time", "TIMESTAMP", "When it happened, UTC.", nullable=False),
        _column("distinct_id", "VARCHAR", "Whose event it is."),
        _column("insert_id", "VARCHAR", "Mixpanel's id for telling copies apart; NULL where the sender gave none."),
        _column("properties", "JSON", "All properties of the event, exactly as Mixpanel serves them."),
        _column("synced_at", "TIMESTAMPTZ", _SYNCED_AT, nullable=False),
        _column("day", "DATE", "The project's day, by which Mixpanel serves it.", nullable=False),
    ]
)
