"""A turn that a request takes when it leaves: its connection is open, nothing of it has been sent.

Before the connection it would say little of when the request arrives: a name to look up, TCP and TLS take from 1 ms to
seconds, so that requests with turns of their own arrive together.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

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


class TurnAdapter(HTTPAdapter):
    """Mounted on a session of `requests`, it makes its requests take their turns."""

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager


class _Connection(HTTPConnection):
    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is None:
            self.connect()
        with _turn.get()():
            super().request(*args, **kwargs)


class _TlsConnection(HTTPSConnection):
    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is None:
            self.connect()
        with _turn.get()():
            super().request(*args, **kwargs)


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


_POOLS = {"http": _Pool, "https": _TlsPool}
