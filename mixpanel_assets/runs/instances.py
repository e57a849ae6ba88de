"""The Dagster instance that `mp` and the Python functions work on: its folder, its first settings, and its opening.

Belongs here: making DAGSTER_HOME usable without a manual step. Does not belong here: what the settings mean
(dagster.yaml says it), how the storage is opened (instance_storage.py), what may be wrong with it (storage_faults.py),
runs (run.py).
"""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from mixpanel_assets import private_files, settings
from mixpanel_assets.errors import ConfigurationError

if TYPE_CHECKING:
    from dagster import DagsterInstance

SETTINGS_FILE = "dagster.yaml"
# stdout and stderr belong to whoever runs this process. Capturing them for the UI would turn the terminal into a file,
# and start two processes that answer Ctrl-C with a traceback.
_NO_CAPTURE = {
    "compute_logs": {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}
}


def prepare_home() -> Path:
    """DAGSTER_HOME with a dagster.yaml in it; what is there already stays as it is.

    Raises:
        ConfigurationError: the folder cannot be made or written, or MP_DUCKDB_PATH is no file of this machine.
    """
    settings.database()  # Refused before anything is made.
    home = settings.home()
    try:
        # Dagster's history holds previews of profiles.
        private_files.make_folder(home)
        if not (home / SETTINGS_FILE).exists():
            _write_settings(home / SETTINGS_FILE)
    except OSError as error:
        raise _unusable(home, error) from None
    return home


@contextmanager
def open_instance() -> "Iterator[DagsterInstance]":
    """The instance of DAGSTER_HOME, or of ./dagster_home.

    Raises:
        ConfigurationError: see `prepare_home`.
        InstanceError: Dagster's settings or its storage cannot be used, now or later in the block.
    """
    home = prepare_home()
    from dagster import DagsterInstance
    from dagster._core.instance.ref import InstanceRef

    from mixpanel_assets.instance_storage import opened_safely
    from mixpanel_assets.runs import storage_faults

    with storage_faults.named(home):
        with storage_faults.opening(home):
            ref = InstanceRef.from_dir(str(home), overrides=_NO_CAPTURE)
            instance = DagsterInstance.from_ref(opened_safely(ref))
        with instance:
            yield instance


def _write_settings(file: Path) -> None:
    """Whole or not at all: another process may read it in this moment."""
    template = resources.files("mixpanel_assets").joinpath(SETTINGS_FILE)
    new = file.with_name(f".{file.name}.{uuid.uuid4().hex[:8]}.new")
    try:
        private_files.write(new, template.read_bytes())
        new.replace(file)
    finally:
        new.unlink(missing_ok=True)


def _unusable(home: Path, error: OSError) -> ConfigurationError:
    reason = os.strerror(error.errno) if error.errno else str(error)
    return ConfigurationError(f"cannot make the Dagster home {home} ({reason}): set DAGSTER_HOME to a folder of yours")
