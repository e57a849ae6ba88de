"""Dagster's SQLite storage, opened by one process at a time.

Belongs here: the lock around the making of Dagster's databases, and the mending of what was made without it. Does not
belong here: what else may be wrong with a storage (runs/storage_faults.py).

Dagster makes its databases when a home is first opened. It gives a new database the version "head", and one with tables
but without a version an older one. Of two processes that open a new home together each may find the other's half: 13 of
16 tries with four processes ended in stack traces, and 5 of these homes had both versions, which alembic refuses for
ever. Their tables are those of "head" all the same. `mp` opens every home like this, commands of Dagster those whose
dagster.yaml names this class.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import dagster as dg
from alembic.util.exc import CommandError
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.sqlite import LAST_KNOWN_STAMPED_SQLITE_ALEMBIC_REVISION as UNKNOWN_AGE
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from dagster._serdes import ConfigurableClassData
from filelock import FileLock, Timeout

from mixpanel_assets import private_files, settings
from mixpanel_assets.errors import InstanceError

# Held for 0.5 s where the databases are made, for milliseconds later.
LOCK_FILE = "opening.lock"
LOCK_SECONDS = 120.0
_DATABASES = ("history/runs.db", "history/runs/index.db", "schedules/schedules.db")
_SQLITE_WAIT_SECONDS = 30.0
# Storages of Dagster's, and the module and class of ours that is opened in their place.
_OURS = {
    "DagsterSqliteStorage": (__name__, "SerialSqliteStorage"),
    "DagsterPostgresStorage": ("mixpanel_assets.postgres_storage", "CheckedPostgresStorage"),
}


class SerialSqliteStorage(DagsterSqliteStorage):
    """Dagster's own storage; `base_dir` is DAGSTER_HOME unless it is given."""

    @classmethod
    def config_type(cls) -> dict[str, dg.Field]:
        return {"base_dir": dg.Field(dg.StringSource, is_required=False)}

    @classmethod
    def from_config_value(  # type: ignore[override] # Dagster's names a TypedDict
        cls, inst_data: ConfigurableClassData, config_value: dict[str, str]
    ) -> "SerialSqliteStorage":
        return cls.from_local(config_value.get("base_dir") or str(settings.home()), inst_data)

    @classmethod
    def from_local(cls, base_dir: str, inst_data: ConfigurableClassData | None = None) -> "SerialSqliteStorage":
        """The storage in this folder, made if it is not there.

        Raises:
            InstanceError: another process does not come to an end with it.
        """
        with _alone(Path(base_dir)):
            try:
                return super().from_local(base_dir, inst_data)
            except CommandError:
                if not mend_versions(Path(base_dir)):
                    raise
            return super().from_local(base_dir, inst_data)


def opened_safely(ref: InstanceRef) -> InstanceRef:
    """The instance with this storage, if it has Dagster's own SQLite storage; likewise with Postgres."""
    ours = _OURS.get(ref.storage_data.class_name) if ref.storage_data else None
    if ours is None or ref.storage_data is None:
        return ref
    return ref._replace(storage_data=ConfigurableClassData(*ours, ref.storage_data.config_yaml))


def mend_versions(folder: Path) -> bool:
    """Leave "head" alone in databases that have another version besides. Returns whether there was one."""
    mended = [_mend_version(folder / name) for name in _DATABASES if (folder / name).exists()]
    return any(mended)


def _mend_version(database: Path) -> bool:
    with closing(sqlite3.connect(database, timeout=_SQLITE_WAIT_SECONDS)) as connection, connection:
        mended = connection.execute(
            "delete from alembic_version where version_num = ? and (select count(*) from alembic_version) = 2",
            [UNKNOWN_AGE],
        )
        return mended.rowcount == 1


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    private_files.make_folder(folder)
    lock = FileLock(folder / LOCK_FILE, mode=private_files.FILE_MODE)
    try:
        lock.acquire(timeout=LOCK_SECONDS)
    except Timeout:
        raise InstanceError(
            f"another process has been opening {folder} for {LOCK_SECONDS:.0f} s: end it, and try again"
        ) from None
    try:
        yield
    finally:
        lock.release()
