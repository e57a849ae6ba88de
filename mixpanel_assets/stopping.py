"""The wish to stop, as the code inside a step sees it.

Belongs here: one event per run, found through a context variable, so that a client in any thread can look at it or
wait on it instead of sleeping. Does not belong here: who asks for the stop (the executor), and anything of Dagster.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_stop: ContextVar[threading.Event | None] = ContextVar("mixpanel_assets_stop", default=None)

# Outside of a run nobody asks to stop; the event exists so that callers need no second path.
_NEVER = threading.Event()


def stop_requested() -> threading.Event:
    """The event that is set once the run should end: `stop_requested().wait(seconds)` instead of `time.sleep`.

    Outside of a run it is an event that is never set. Threads started by a step see the run's event only if they are
    started with `contextvars.copy_context().run`.
    """
    return _stop.get() or _NEVER


@contextmanager
def stoppable(stop: threading.Event) -> Iterator[threading.Event]:
    """Make `stop` the event that `stop_requested()` returns inside this block."""
    token = _stop.set(stop)
    try:
        yield stop
    finally:
        _stop.reset(token)
