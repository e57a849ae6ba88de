"""The Dagster instance that `mp` and the Python functions work on: its folder, and its first settings.

Belongs here: making DAGSTER_HOME usable without a manual step. Does not belong here: what the settings mean
(dagster.yaml says it), and runs (run.py).
"""

import os
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from mixpanel_assets import settings
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
        ConfigurationError: the folder cannot be made or written.
    """
    home = settings.home()
    try:
        home.mkdir(parents=True, exist_ok=True)
        if not (home / SETTINGS_FILE).exists():
            template = resources.files("mixpanel_assets").joinpath(SETTINGS_FILE)
            (home / SETTINGS_FILE).write_text(template.read_text(encoding="utf-8"), encoding="utf-8")
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise ConfigurationError(
            f"cannot make the Dagster home {home} ({reason}): set DAGSTER_HOME to a folder of yours"
        ) from None
    return home


def open_instance() -> "DagsterInstance":
    """The instance of DAGSTER_HOME, or of ./dagster_home; use it in a `with` statement.

    Raises:
        ConfigurationError: see `prepare_home`.
    """
    home = prepare_home()
    from dagster import DagsterInstance
    from dagster._core.instance.ref import InstanceRef

    return DagsterInstance.from_ref(InstanceRef.from_dir(str(home), overrides=_NO_CAPTURE))
