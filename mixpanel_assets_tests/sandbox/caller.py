"""How the sandbox is asked in its tests: http.client and raw sockets, never the project's own client."""

import base64
import gzip
import http.client
import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from typing import Any
from urllib.parse import urlencode, urlsplit

from mixpanel_assets.sandbox import Sandbox

DAY = "2024-01-02"


@dataclass
class Answer:
    status: int
    headers: Message
    body: bytes

    @property
    def text(self) -> bytes:
        return gzip.decompress(self.body) if self.headers.get("Content-Encoding") == "gzip" else self.body

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def ids(self) -> list[Any]:
        return [row["$distinct_id"] for row in self.json["results"]]


@dataclass
class Caller:
    sandbox: Sandbox

    def headers(self) -> dict[str, str]:
        env = self.sandbox.environment
        basic = base64.b64encode(f"{env['MP_USERNAME']}:{env['MP_SECRET']}".encode()).decode()
        return {"Authorization": f"Basic {basic}"}

    def call(self, method: str, path: str, body: str | None = None, headers: Mapping[str, str] | None = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", urlsplit(self.sandbox.url).port or 0, timeout=20)
        try:
            connection.request(method, path, body, {**self.headers(), **(headers or {})})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def engage(self, headers: Mapping[str, str] | None = None, **params: Any) -> Answer:
        path = f"/api/query/engage?project_id={self.sandbox.project_id}"
        return self.call("POST", path, urlencode(params), headers)

    def export_path(self, from_date: str = DAY, to_date: str | None = None, **more: Any) -> str:
        days = {"from_date": from_date, "to_date": to_date or from_date}
        return "/api/2.0/export?" + urlencode({**days, "project_id": self.sandbox.project_id, **more})

    def export(self, *args: Any, headers: Mapping[str, str] | None = None, **more: Any) -> Answer:
        return self.call("GET", self.export_path(*args, **more), headers=headers)

    def raw(self, path: str) -> tuple[bytes, bool]:
        """Everything a socket gets until the end, and whether the end was a reset."""
        with socket.create_connection(("127.0.0.1", urlsplit(self.sandbox.url).port or 0), timeout=20) as connection:
            lines = [f"GET {path} HTTP/1.1", "Host: x", *(f"{k}: {v}" for k, v in self.headers().items()), "", ""]
            connection.sendall("\r\n".join(lines).encode())
            received = b""
            try:
                while block := connection.recv(65536):
                    received += block
            except ConnectionResetError:
                return received, True
            return received, False

    def raw_engage(self) -> tuple[bytes, bool]:
        return self.raw(f"/api/query/engage?project_id={self.sandbox.project_id}&page=0")
