"""The SQLite file of the ledger: made, opened for one at a time, begun anew when it is damaged.

Belongs here: the file and its lock. Does not belong here: what is counted in it, and its rules (quota.py).
"""

import contextlib
import logging
import re
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock

from mixpanel_assets import private_files
from mixpanel_assets.errors import Cancelled, ConfigurationError

_LOG = logging.getLogger(__name__)
# Our own processes hold it for milliseconds. Who waits looks as often whether the run was asked to end.
_LOCK_POLL_SECONDS = 0.25
# A file is opened within milliseconds.
_TURN_POLL_SECONDS = 0.005
_IN_MEMORY = ":memory:"
_TOLD_AFTER_SECONDS = 5.0
_LOCKED = re.compile(r"locked|busy", re.IGNORECASE)
# What SQLite says of a database that is not ours.
_OTHER_TABLES = re.compile(r"no such (table|column)|has no column|already exists|not a table", re.IGNORECASE)


class LedgerFile:
    """A SQLite database that processes share; each transaction is alone.

    Args:
        file: Where, made when needed; None: in memory, for this object alone.
        schema: Statements that make the tables where they are not there.
        stop: Set when the run is asked to end; a wait for the lock ends then.
    """

    def __init__(self, file: Path | None, schema: str, stop: threading.Event | None = None) -> None:
        self._file = file
        self._schema = schema
        self._stop = stop or threading.Event()
        self._turn = threading.Lock()
        self._memory = None if file else self._connected(_IN_MEMORY)
        if self._memory is not None:
            weakref.finalize(self, self._memory.close)  # Python 3.13 warns of those that garbage collection closes.

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A connection that nobody else writes beside; whoever locks the file is waited for.

        Raises:
            ConfigurationError: the file cannot be used.
            Cancelled: the run was asked to end meanwhile.
        """
        with self._turn:
            if self._file is None:
                assert self._memory is not None
                self._memory.execute("begin")
                yield from _ended(self._memory)
                return
            try:
                with contextlib.closing(self._alone(self._file)) as connection:
                    yield from _ended(connection)
            except (sqlite3.Error, OSError) as error:
                raise ConfigurationError(
                    f"cannot use the quota ledger {self._file} ({error}): set DAGSTER_HOME to a folder that can be "
                    "written"
                ) from None

    def _alone(self, file: Path) -> sqlite3.Connection:
        """A connection in a transaction, once nobody else has one."""
        began, told = time.monotonic(), False
        while True:
            try:
                return self._begun(file)
            except sqlite3.OperationalError as error:
                if not _LOCKED.search(str(error)):
                    raise
            if self._stop.wait(0.01):
                raise Cancelled(f"cancelled while {_lock_holder(file)} had locked the quota ledger {file}")
            if not told and time.monotonic() - began > _TOLD_AFTER_SECONDS:
                _LOG.warning(f"the quota ledger {file} is locked by {_lock_holder(file)}; waiting for it")
                told = True

    def _begun(self, file: Path) -> sqlite3.Connection:
        if not file.exists():
            private_files.make_folder(file.parent)
        connection = self._sound(file)
        try:
            connection.execute("begin exclusive")
        except BaseException:
            connection.close()
            raise
        return connection

    def _sound(self, file: Path) -> sqlite3.Connection:
        """A connection to a file that is what it should be: one that is not is put aside. What was counted in it is
        lost, which costs a refusal or two; a sync that needs a person to delete a file costs more."""
        # Each is opened in turn: a journal of the new file must not be taken for that of the damaged one, and deleted.
        with FileLock(file.with_suffix(".lock"), mode=private_files.FILE_MODE).acquire(
            poll_interval=_LOCK_POLL_SECONDS
        ):
            try:
                return self._connected(str(file))
            except _DamagedError as damage:
                aside = file.with_suffix(".damaged")
                file.replace(aside)
                file.with_name(f"{file.name}-journal").unlink(missing_ok=True)
                _LOG.warning(f"the quota ledger {file} is damaged ({damage}): it is now {aside}, and begun anew")
            return self._connected(str(file))

    def _connected(self, name: str) -> sqlite3.Connection:
        if name != _IN_MEMORY:
            private_files.make_empty(Path(name))  # Its journal takes over its mode.
        connection = sqlite3.connect(name, timeout=_LOCK_POLL_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            connection.executescript(self._schema)
            [(verdict,)] = connection.execute("pragma integrity_check(1)").fetchall()
            if verdict != "ok":
                raise _DamagedError(" ".join(str(verdict).split()))
        except sqlite3.DatabaseError as error:
            connection.close()
            # Locked, full, not to be written: the file may be as it should.
            if isinstance(error, sqlite3.OperationalError) and not _OTHER_TABLES.search(str(error)):
                raise
            raise _DamagedError(str(error)) from None
        except BaseException:
            connection.close()
            raise
        return connection


class _DamagedError(Exception):
    """The file is no database, or not the ledger's."""


def _ended(connection: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    try:
        yield connection
    except BaseException:
        connection.execute("rollback")
        raise
    connection.execute("commit")


def _lock_holder(file: Path) -> str:
    """Who has locked a file, where the system tells it (Linux)."""
    with contextlib.suppress(OSError):
        node = file.stat().st_ino
        for line in Path("/proc/locks").read_text(encoding="utf-8").splitlines():
            found = re.search(rf"\s(\d+) [0-9a-f]+:[0-9a-f]+:{node}\s", line)
            if found and found[1] != "0":
                return f"process {found[1]}"
    return "another process"
