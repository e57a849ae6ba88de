"""Merges profiles into the DuckLake of MP_DATABASE, again and again; run by tests in processes of their own.

Arguments: a folder for staged pages, a name, how often, and perhaps the step of the load at which it is killed.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mixpanel_assets import settings
from mixpanel_assets.database_address import LakeAddress
from mixpanel_assets.storage.ducklake import DuckLake
from mixpanel_assets.streams.snapshot.load import publish
from mixpanel_assets_tests.staged import page, staged


class _Killed:
    """A connection whose process is killed at a step."""

    def __init__(self, connection: Any, steps: int) -> None:
        self._connection, self._steps = connection, steps

    def __getattr__(self, name: str) -> Callable[..., Any]:
        self._steps -= 1
        if not self._steps:
            os.kill(os.getpid(), signal.SIGKILL)
        return getattr(self._connection, name)  # type: ignore[no-any-return]


def main(folder: str, name: str, times: str, kill_at: str = "0") -> None:
    """Profiles of this process's own, and one that all share."""
    address = settings.database()
    assert isinstance(address, LakeAddress)
    for number in range(int(times)):
        rows = {f"{name} {number}": "{}", "shared": f'{{"by": "{name} {number}"}}'}
        pages = staged(Path(folder), f"{name}-{number}", [page(0, rows)], complete=False)
        with DuckLake(address).transaction() as connection:
            publish(_Killed(connection, int(kill_at)), pages)  # type: ignore[arg-type]  # as a connection does


if __name__ == "__main__":
    main(*sys.argv[1:])
