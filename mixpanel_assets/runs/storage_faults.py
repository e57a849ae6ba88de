"""What may be wrong with Dagster's storage, named in one line with the way out.

Belongs here: the errors of Dagster's settings and databases, as errors of ours. Does not belong here: opening them
(instances.py), and the DuckDB file (storage/warehouse.py).
"""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import sqlalchemy
from alembic.util.exc import CommandError
from dagster._check import CheckError
from yaml import YAMLError  # type: ignore[import-untyped] # Dagster brings it, its types are a package of their own

from mixpanel_assets.errors import InstanceError, MixpanelAssetsError

_LONGEST = 300
_REASONS = (
    (
        re.compile("connection to server at|server closed the connection|terminating connection"),
        "Postgres, where Dagster's history lies, does not answer; the next sync reports this run failed: {reason}",
    ),
    (
        re.compile("database is locked|database table is locked", re.IGNORECASE),
        "Dagster's history in {home} is locked by another process: end that, or wait, and try again",
    ),
    (
        re.compile("not a database|malformed|file is encrypted|no such table|no such column|more than one head"),
        "Dagster's history in {home} is damaged: move its folders `history` and `schedules` away and try again (the "
        "stored tables are not in them): {reason}",
    ),
    (re.compile("disk is full|No space left"), "no room on the disk for Dagster's history in {home}: free some"),
    (
        re.compile("readonly|unable to open database|Permission denied"),
        "Dagster's history in {home} cannot be written: give it back to the user who runs this: {reason}",
    ),
)


@contextmanager
def named(home: Path) -> Iterator[None]:
    """Errors of Dagster's databases inside this block become one line.

    Raises:
        InstanceError: what is wrong with them, and what to do.
    """
    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, sqlite3.Error, CommandError) as error:
        raise InstanceError(_explained(error, home)) from None
    except Exception as error:
        # dagster-postgres's, once it has tried for some seconds.
        if not isinstance(error.__cause__, sqlalchemy.exc.SQLAlchemyError):
            raise
        raise InstanceError(_explained(error.__cause__, home)) from None


@contextmanager
def opening(home: Path) -> Iterator[None]:
    """As `named`, for the opening: whatever fails there, it is the settings or the storage that they name.

    Raises:
        InstanceError: what is wrong with them, and what to do.
    """
    try:
        yield
    except MixpanelAssetsError:
        raise
    except (YAMLError, dg.DagsterError, CheckError, UnicodeDecodeError, IsADirectoryError) as error:
        raise InstanceError(
            f"{home / 'dagster.yaml'} cannot be read: mend it, or move it away and it is made anew: {_reason(error)}"
        ) from None
    except (sqlalchemy.exc.SQLAlchemyError, sqlite3.Error, CommandError):
        raise
    except Exception as error:  # noqa: BLE001 - the settings may name any class
        raise InstanceError(f"Dagster's instance in {home} cannot be opened: {_reason(error)}") from None


def _explained(error: Exception, home: Path) -> str:
    reason = _reason(error)
    found = next((words for pattern, words in _REASONS if pattern.search(reason)), None)
    return (found or "Dagster's history in {home} cannot be used: {reason}").format(home=home, reason=reason)


def _reason(error: Exception) -> str:
    if isinstance(error, dg.DagsterInvalidConfigError) and error.errors:
        error = Exception(error.errors[0].message)
    cause = getattr(error, "orig", None) or error
    line = " ".join(str(cause).split()) or type(error).__name__
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."
