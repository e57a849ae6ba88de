"""A copy of the DuckDB file for those who keep it open all day: swapped in whole after each sync.

Who has the copy open goes on reading what it was; who opens it then sees the new one. It cannot be written, so that
nobody opens it for writing by mistake; by that it is also known from files that are no copies.

Belongs here: how the copy is made and swapped in. Does not belong here: when (warehouse.py).
"""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

import stat
import subprocess
import sys
import uuid
from pathlib import Path

import duckdb

from mixpanel_assets.client.server_text import one_line
from mixpanel_assets.errors import ConfigurationError
from mixpanel_assets.storage import copy_file

_WRITABLE = stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH
_FOR_ITS_OWNER = stat.S_IRUSR
_MOST_CHARACTERS = 300


def check_place(copy: Path, database: Path) -> None:
    """Refuse a place where no copy can go, or something else would be lost.

    Raises:
        ConfigurationError: one line that says what to do.
    """
    if not copy.parent.is_dir():
        raise ConfigurationError(f"the folder {copy.parent} of MP_READ_COPY does not exist: make it, or choose another")
    if copy.resolve() == database.resolve():
        raise ConfigurationError(f"MP_READ_COPY is the DuckDB file itself, {copy}: choose another name")
    if copy.exists() and copy.stat().st_mode & _WRITABLE:
        raise ConfigurationError(f"{copy} is no copy of ours, as it can be written: move it away, or set MP_READ_COPY")


def renew(copy: Path, database: Path, connection: duckdb.DuckDBPyConnection) -> str | None:
    """Swap in a copy of the database as last committed; None, or why that was not possible and the old one stays.

    `connection` has the database open and no transaction, so that nobody else writes meanwhile.
    """
    new = copy.with_name(f".{copy.name}.{uuid.uuid4().hex[:8]}.new")
    try:
        check_place(copy, database)
        for left in copy.parent.glob(f".{copy.name}.*.new"):  # of a process that was killed
            left.unlink(missing_ok=True)
        connection.execute("checkpoint")
        if _log_of(database).exists() and _log_of(database).stat().st_size:
            return "another connection of this process keeps the last commit in the file's log"
        done = subprocess.run(
            [sys.executable, "-I", copy_file.__file__, str(database), str(new)], capture_output=True, text=True
        )
        if done.returncode:
            return one_line(done.stderr, _MOST_CHARACTERS)
        new.chmod(stat.S_IMODE(copy.stat().st_mode) if copy.exists() else _FOR_ITS_OWNER)
        # Of somebody who had the last copy open for writing all the same; it does not fit the new one.
        _log_of(copy).unlink(missing_ok=True)
        new.replace(copy)
    except (OSError, duckdb.Error, ConfigurationError) as error:
        return one_line(str(error), _MOST_CHARACTERS)
    finally:
        new.unlink(missing_ok=True)
    return None


def _log_of(database: Path) -> Path:
    return database.with_name(f"{database.name}.wal")
