"""What holds for every test: a clean environment, no connection that leaves this machine, and what its layer is for.

Tests marked `unit` start no process and make no Dagster instance; those marked `process` start processes, browsers and
terminals; the others run Dagster in the process of the test.
"""

import os
import socket
import subprocess
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NoReturn

import pytest
from dagster import DagsterInstance

from mixpanel_assets.process_setup import read_migrations_once

if TYPE_CHECKING:
    from mixpanel_assets_tests.postgres import Database, Server

LOOPBACK = ("127.", "::1", "localhost")

# A third of the time of most tests that run Dagster; processes of ours do the same.
read_migrations_once()


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test depends on what the person who runs it has exported."""
    for name in list(os.environ):
        if name.startswith(("MP_", "DAGSTER_")) or name.upper().endswith(("_PROXY", "_CA_BUNDLE")):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True)
def loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that talks to the world is a test that fails elsewhere."""
    connect = socket.socket.connect

    def connect_nearby(self: socket.socket, address: Any) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6) and not str(address[0]).startswith(LOOPBACK):
            raise AssertionError(f"a test tried to connect to {address[0]}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_nearby)


@pytest.fixture(autouse=True)
def layer_is_kept(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What would make the quick layers slow belongs into another one."""
    marks = {mark.name for mark in request.node.iter_markers()}
    if "process" not in marks:
        monkeypatch.setattr(subprocess.Popen, "__init__", _refuse_process)
    if "unit" in marks:
        monkeypatch.setattr(DagsterInstance, "__init__", _refuse_instance)


def _refuse_process(_: object, command: Any, *__: object, **___: object) -> NoReturn:
    if command[0] == "uname":  # Python's, for Dagster's telemetry, which does without it.
        raise OSError
    raise AssertionError(f"this test starts a process, {command}: mark it `process`")


def _refuse_instance(*_: object, **__: object) -> NoReturn:
    raise AssertionError("this test makes a Dagster instance: it is no unit test")


@pytest.fixture
def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def postgres_server() -> Iterator["Server"]:
    """A Postgres server of this process; tests that use it are marked `needs_postgres`."""
    from mixpanel_assets_tests.postgres import server

    # Its files go with it: nothing has to outlive a power failure.
    with server("fsync=off") as running:
        yield running


@pytest.fixture
def database(postgres_server: "Server") -> "Database":
    """An empty database."""
    return postgres_server.new_database()
