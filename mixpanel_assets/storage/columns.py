"""A column of a stream's table, once: the table is made from it, and Dagster's catalog describes it."""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

from collections.abc import Sequence
from dataclasses import dataclass

import duckdb

from mixpanel_assets.storage.warehouse import compression


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


def is_newer(stored: str, staged: str) -> str:
    """SQL for: what is stored was asked for later than what comes now, and stays. Both are instants in SQL.

    What lies in the future a wrong clock has written, and would be newer for ever.
    """
    return f"({stored} > {staged} and {stored} <= now())"


def create_table(
    connection: duckdb.DuckDBPyConnection, table: str, columns: Sequence[Column], later: Sequence[Column] = ()
) -> None:
    """Make the table where it is not there, JSON compressed; `later`: columns that one of an earlier version lacks."""
    packed = compression(connection)
    described = (f"{each.name} {each.type} {packed if each.type == 'JSON' else ''}" for each in columns)
    connection.execute(f"create table if not exists {table} ({', '.join(described)})")
    for each in later:
        connection.execute(f"alter table {table} add column if not exists {each.name} {each.type}")
