"""A column of a stream's table, once: the table is made from it, and Dagster's catalog describes it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """A column.

    Attributes:
        name: Its name.
        type: Its SQL type.
        description: What it holds, in one line.
        nullable: Whether NULL may stand in it, as a promise to readers; the table itself does not enforce it.
        value: SQL that makes it out of a staged row; empty where the load fills it in.
    """

    name: str
    type: str
    description: str
    nullable: bool = True
    value: str = ""


SYNCED_AT = Column("synced_at", "TIMESTAMPTZ", "When this row was asked for.", nullable=False)
