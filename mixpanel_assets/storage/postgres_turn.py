"""The turn of processes, on any host, at a catalogue in Postgres: an advisory lock on a connection held meanwhile.

It is gone when that connection is: with its process, or half a minute after its host.
"""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

import duckdb

from mixpanel_assets.errors import Cancelled, WarehouseError
from mixpanel_assets.stopping import stop_requested
from mixpanel_assets.storage.sql_text import sql_text

# Any number that others hardly take: the bytes of "mixpane".
_LOCK = int.from_bytes(b"mixpane", "big")
_POLL_MILLISECONDS = 500
_ALIVE = ("tcp_keepalives_idle = 10", "tcp_keepalives_interval = 5", "tcp_keepalives_count = 4")


@contextmanager
def turn_in_postgres(
    connected: Callable[[], duckdb.DuckDBPyConnection],
    database: str,
    place: object,
    say: Callable[[str], None],
    explained: Callable[[duckdb.Error], WarehouseError],
) -> Iterator[Callable[[], None]]:
    """No other process of ours writes to the catalogue meanwhile. What it returns raises if the turn was lost.

    Args:
        connected: A connection of DuckDB's.
        database: How libpq connects to it.
        place: What people know it by.
        say: Told, in a line, when another process is waited for.
        explained: What an error of DuckDB's means.

    Raises:
        WarehouseError: the database cannot be reached.
        Cancelled: the run was asked to stop meanwhile.
    """
    with closing(connected()) as connection, _attached(connection, database, explained):
        try:
            told = False
            while not _taken(connection):
                if not told:
                    say(f"another sync of ours works with {place}; waiting for it")
                    told = True
                if stop_requested().is_set():
                    raise Cancelled(f"cancelled while another sync worked with {place}")
        except duckdb.Error as error:
            raise explained(error) from None

        def still_ours() -> None:
            try:
                _execute(connection, "select 1")
            except duckdb.Error as error:
                raise explained(error) from None

        yield still_ours


@contextmanager
def _attached(
    connection: duckdb.DuckDBPyConnection, database: str, explained: Callable[[duckdb.Error], WarehouseError]
) -> Iterator[None]:
    try:
        connection.execute(f"attach {sql_text(database)} as catalogue (type postgres)")
    except duckdb.Error as error:
        raise explained(error) from None
    try:
        yield
    finally:
        with suppress(duckdb.Error):  # The transaction is over if the connection was lost.
            connection.rollback()
        with suppress(duckdb.Error):
            connection.execute("detach catalogue")


def _taken(connection: duckdb.DuckDBPyConnection) -> bool:
    # DuckDB keeps to one connection of Postgres within a transaction.
    connection.begin()
    try:
        for setting in (f"lock_timeout = {_POLL_MILLISECONDS}", "idle_in_transaction_session_timeout = 0", *_ALIVE):
            _execute(connection, f"set {setting}")
        _execute(connection, f"select pg_advisory_xact_lock({_LOCK})")
    except duckdb.Error as error:
        connection.rollback()
        if "lock timeout" not in str(error):
            raise
        return False
    return True


def _execute(connection: duckdb.DuckDBPyConnection, statement: str) -> None:
    connection.execute("call postgres_execute('catalogue', ?)", [statement])
