"""Turns at the DuckDB file within one run: our connections, and the steps of other people's assets.

DuckDB gives a file to connections of one configuration per process: a thread that opens it read-only, or as
dagster-duckdb does, is refused while another has it open in another way. What a step that is not ours does is not
known, so it starts when no connection of ours is open, and we open none before it has ended.

Belongs here: whose turn it is. Does not belong here: which steps are ours (executor/), and how the file is opened
(storage/).
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from mixpanel_assets.errors import Cancelled
from mixpanel_assets.stopping import stop_requested

_LOOK_AT_STOP_EVERY_SECONDS = 0.2


class FileTurns:
    """The turns of one run, all of whose steps are threads of this process."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._connections = 0
        self._their_steps: list[str] = []

    @contextmanager
    def their_step(self, key: str) -> Iterator[None]:
        """A step that may open the file in its own way: begins when no connection of ours is open."""
        with self._changed:
            while self._connections and not stop_requested().is_set():
                self._changed.wait(_LOOK_AT_STOP_EVERY_SECONDS)
            self._their_steps.append(key)
        try:
            yield
        finally:
            with self._changed:
                self._their_steps.remove(key)
                self._changed.notify_all()

    @contextmanager
    def our_step(self) -> Iterator[None]:
        """A step whose connections take turns with other people's steps."""
        token = _turns.set(self)
        try:
            yield
        finally:
            _turns.reset(token)

    @contextmanager
    def connection(self, say: Callable[[str], None]) -> Iterator[None]:
        """A connection of ours: opened when no step of other people runs, and `say` is told what is waited for."""
        told = False
        with self._changed:
            while self._their_steps:
                steps = ", ".join(self._their_steps)
                if not told:
                    say(f"waiting for {steps}, which may have the DuckDB file open in this process")
                    told = True
                if stop_requested().is_set():
                    raise Cancelled(f"cancelled while waiting for {steps}; nothing was stored")
                self._changed.wait(_LOOK_AT_STOP_EVERY_SECONDS)
            self._connections += 1
        try:
            yield
        finally:
            with self._changed:
                self._connections -= 1
                self._changed.notify_all()


_turns: ContextVar[FileTurns | None] = ContextVar("mixpanel_assets_file_turns", default=None)


@contextmanager
def our_turn(say: Callable[[str], None]) -> Iterator[None]:
    """The turn of a connection; at once where no run's steps share the process."""
    turns = _turns.get()
    if turns is None:
        yield
        return
    with turns.connection(say):
        yield
