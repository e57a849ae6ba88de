"""The database in memory through which this process reaches a DuckLake.

It is kept as long as the process, since DuckDB takes 0.3 s of CPU to load its extensions into a new one; the DuckLake
is attached to it while somebody uses it. All threads share it: a catalogue that is a DuckDB file goes to one alone.
"""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

import functools
import threading
from collections.abc import Callable
from contextlib import suppress

import duckdb

from mixpanel_assets.storage.spill_folder import spill_folder

# What the catalog is called in our connections; people attach it under any name.
CATALOG = "lake"
# What a load chooses for the instance, and is nothing to whoever comes after it.
_CHOSEN = ("memory_limit", "threads", "preserve_insertion_order")


class LakeInstance:
    """One of them."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._keeper: duckdb.DuckDBPyConnection | None = None
        self._users = 0

    def opened(self, attach: Callable[[duckdb.DuckDBPyConnection], None]) -> duckdb.DuckDBPyConnection:
        """A connection whose current database is the DuckLake; `attach` attaches it, if it is not yet.

        Raises:
            duckdb.Error: it cannot be attached.
        """
        with self._guard:
            connection = self._cursor()
            try:
                attach(connection)
                connection.execute(f"use {CATALOG}")
            except duckdb.Error:
                connection.close()
                if not self._users:
                    self._detach()
                raise
            self._users += 1
            return connection

    def close(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Close it; with the last one the DuckLake is detached, and free for other processes."""
        with self._guard:
            connection.close()
            self._users -= 1
            if not self._users:
                self._detach()

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection with nothing attached by us."""
        with self._guard:
            return self._cursor()

    def _cursor(self) -> duckdb.DuckDBPyConnection:
        if self._keeper is None:
            # What a kill leaves on the disk nobody can read.
            self._keeper = duckdb.connect(config={"temp_directory": spill_folder(), "temp_file_encryption": True})
        return self._keeper.cursor()

    def _detach(self) -> None:
        with self._cursor() as connection:
            with suppress(duckdb.Error):  # It was never attached.
                connection.execute(f"detach {CATALOG}")
            for name in _CHOSEN:
                connection.execute(f"reset {name}")


@functools.cache
def lake_instance(name: str) -> LakeInstance:
    """That of a DuckLake, by its name."""
    return LakeInstance()
