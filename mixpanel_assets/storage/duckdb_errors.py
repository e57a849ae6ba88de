"""What DuckDB's errors mean, as ours; and the wait for a file that somebody else has open."""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import duckdb

from mixpanel_assets.client.server_text import one_line
from mixpanel_assets.errors import Cancelled, WarehouseError
from mixpanel_assets.stopping import stop_requested

T = TypeVar("T")

# What DuckDB says on POSIX, and what Windows says; merely "lock" is in "block" and in many a path.
_LOCKED = re.compile(r"could not set lock|conflicting lock|used by another process", re.IGNORECASE)
# What DuckDB says of connections of one process. They are no lock, and end like one.
_OPEN_OTHERWISE = re.compile(r"with a different configuration|unique file handle conflict", re.IGNORECASE)
_LOCK_HOLDER = re.compile(r"held in (?P<program>.*?) ?\(PID (?P<pid>\d+)\)")
_MOST_CHARACTERS = 1000
_LOCK_POLL_SECONDS = 0.2
_NO_ROOM = re.compile(r"could not write|no space left|file too large|failed to commit", re.IGNORECASE)


def lock_holder(error: duckdb.Error) -> str | None:
    """Who has the file open, if that is why DuckDB refused it."""
    text = str(error)
    if _OPEN_OTHERWISE.search(text):
        return "another connection of this process"
    if not _LOCKED.search(text):
        return None
    found = _LOCK_HOLDER.search(text)
    return f"process {found['pid']} ({Path(found['program']).name})" if found else "another process"


def explained(error: duckdb.Error, path: Path) -> WarehouseError:
    """The error of a file, in one line that says what to do."""
    text = one_line(str(error), _MOST_CHARACTERS)  # It may quote rows.
    holder = lock_holder(error)
    if holder is not None:
        return WarehouseError(f"{path} is held by {holder}: close it there and sync again; the table is as it was")
    if "orrupt" in text:
        return WarehouseError(f"{path} is damaged: restore it, or move it away and sync anew: {text}")
    if "not a valid DuckDB" in text or isinstance(error, duckdb.SerializationException):
        return WarehouseError(f"{path} is not a DuckDB database: set MP_DUCKDB_PATH to another file")
    if _NO_ROOM.search(text):
        return WarehouseError(f"cannot write {path}, which is as it was: free space, then sync again: {text}")
    if isinstance(error, duckdb.IOException):
        return WarehouseError(f"cannot use {path}, which is as it was: {text}")
    return WarehouseError(f"DuckDB refused ({path} is as it was): {text}")


def opened_once_free(opened: Callable[[], T], place: object, say: Callable[[str], None], wait_seconds: float) -> T:
    """What `opened` returns, tried again while somebody else has the file open.

    Raises:
        duckdb.Error: it cannot be opened, or is still held after so long.
        Cancelled: the run was asked to stop meanwhile.
    """
    deadline = time.monotonic() + wait_seconds
    told = False
    while True:
        try:
            return opened()
        except duckdb.Error as error:
            holder = lock_holder(error)
            if holder is None or time.monotonic() >= deadline:
                raise
            if not told:
                say(f"{place} is held by {holder}; waiting up to {wait_seconds:.0f} s for it")
                told = True
            if stop_requested().wait(_LOCK_POLL_SECONDS):
                raise Cancelled(f"cancelled while {holder} held {place}, which is as it was") from None
