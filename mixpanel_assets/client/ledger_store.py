"""What the ledger needs of the place where it is kept: its tables, transactions that are alone, and a clock.

Two kinds: a file of one machine (ledger_file.py), and the Postgres that hosts share (limit_tables.py).
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

# As SQLite and Postgres both take it: a real has eight bytes in SQLite, and four in Postgres.
LEDGER_SCHEMA = """
create table if not exists {prefix}counted (id bigint primary key, account text not null, at double precision not null);
create index if not exists {prefix}counted_by_account on {prefix}counted (account, at);
create table if not exists {prefix}told (account text primary key, hourly_limit bigint, window_seconds double precision,
    limit_until double precision not null default 0, blocked_until double precision not null default 0,
    refusals bigint not null default 0, session_pages_until double precision not null default 0);
"""


class Statements(Protocol):
    """What of a database's connection the ledger uses; values are `?` in a statement."""

    def execute(self, statement: str, values: Sequence[Any] = ..., /) -> Any:
        """Its rows."""

    def executemany(self, statement: str, rows: Sequence[Sequence[Any]], /) -> Any:
        """Once for each row."""


class LedgerStore(Protocol):
    """Tables that processes share, with their clock; `prefix` is how the tables' names begin."""

    prefix: str

    def clock(self) -> float:
        """Seconds since the epoch."""

    def transaction(self) -> AbstractContextManager[Statements]:
        """A transaction that is alone."""
