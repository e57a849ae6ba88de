"""What is to be done once a run has succeeded; known to the process that runs its steps as threads.

A run by another executor leaves it undone: what waits for it here must be made up for by later runs.
"""

import threading
from collections.abc import Callable
from contextlib import suppress

_guard = threading.Lock()
_wanted: dict[str, list[Callable[[], object]]] = {}


def once_succeeded(run_id: str, act: Callable[[], object]) -> None:
    """Call `act` when all steps of a run have succeeded."""
    with _guard:
        _wanted.setdefault(run_id, []).append(act)


def ended(run_id: str, *, succeeded: bool) -> None:
    """Do what was wanted of a run, or forget it."""
    with _guard:
        wanted = _wanted.pop(run_id, [])
    for act in wanted if succeeded else ():
        # The run has succeeded, whatever comes of this.
        with suppress(Exception):
            act()
