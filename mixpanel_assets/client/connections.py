"""Sessions of the HTTP library whose requests can be watched, and take their turn when they leave.

Belongs here: what has to be known of urllib3 for that. Does not belong here: when to end a request (request_watch.py),
whose turn it is (send_turn.py).
"""

import http.client
import socket
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from mixpanel_assets.client import request_watch, send_turn


class OneAtATimeSession(requests.Session):
    """A session for one request at a time, up to the headers of its answer.

    It looks at no redirect: else it would read the body, whatever its size, and the address, which need not be one.
    """

    def __init__(self) -> None:
        super().__init__()
        for scheme in ("http://", "https://"):
            self.mount(scheme, _Adapter())

    def get_redirect_target(self, resp: requests.Response) -> None:
        return None


class _Adapter(HTTPAdapter):
    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager


class _Response(http.client.HTTPResponse):
    def _safe_read(self, amt: int) -> bytes:
        # A chunk that says its size is -1 would be read to the end of all that comes, at once.
        if amt < 0:
            raise http.client.IncompleteRead(b"")
        return super()._safe_read(amt)  # type: ignore[misc,no-any-return]


class _Watched(HTTPConnection):
    response_class = _Response

    def _new_conn(self) -> socket.socket:
        connection = super()._new_conn()
        request_watch.hold(connection)
        return connection

    def request(self, *args: Any, **kwargs: Any) -> None:
        if self.sock is None:
            self.connect()
        request_watch.hold(self.sock)
        with send_turn.turn():
            super().request(*args, **kwargs)


class _WatchedTls(_Watched, HTTPSConnection):
    """The same over TLS: urllib3's HTTPSConnection comes after `_Watched` and before HTTPConnection."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Watched


class _TlsPool(HTTPSConnectionPool):
    ConnectionCls = _WatchedTls


_POOLS = {"http": _Pool, "https": _TlsPool}
