"""A turn that a request takes when it leaves: its connection is open, nothing of it has been sent.

Before the connection it would say little of when the request arrives: a name to look up, TCP and TLS take from 1 ms to
seconds, so that requests with turns of their own arrive together.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar

Turn = Callable[[], AbstractContextManager[None]]

_turn: ContextVar[Turn] = ContextVar("mixpanel_assets_send_turn", default=nullcontext)


@contextmanager
def taking(turn: Turn) -> Iterator[None]:
    """Requests of this block are sent inside `turn()`; what that raises ends them."""
    token = _turn.set(turn)
    try:
        yield
    finally:
        _turn.reset(token)


def turn() -> AbstractContextManager[None]:
    """The turn of the request that this thread is about to send."""
    return _turn.get()()
