"""A Postgres server of the tests' own on a loopback port, with a new database for each test that wants one.

Its programs are Debian's, or those on the PATH; where there are none, tests that need it are skipped and say so.
"""

import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import sqlalchemy as db

USER, PASSWORD = "mixpanel", "p@ss/w%rd"
# Debian leaves them off the PATH.
_BY_DEBIAN = [str(folder) for folder in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
_PATH = os.pathsep.join([os.environ.get("PATH", ""), *_BY_DEBIAN])
_INITDB, _SERVER = shutil.which("initdb", path=_PATH), shutil.which("postgres", path=_PATH)
_START_SECONDS = 30.0

needs_postgres = pytest.mark.skipif(None in (_INITDB, _SERVER), reason="no Postgres server on this machine")


@dataclass
class Server:
    """A server; `port` stays the same when it is started again."""

    folder: Path
    port: int
    settings: Sequence[str] = ()
    _process: "subprocess.Popen[bytes] | None" = None
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    def make(self) -> None:
        """Make its files."""
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        files = self.folder / "data"
        if os.getuid() == 0:
            for path in (self.folder, secret):
                shutil.chown(path, _unprivileged())
        command = [str(_INITDB), "-D", str(files), "-U", USER, "-A", "scram-sha-256", f"--pwfile={secret}"]
        subprocess.run([*command, "-E", "UTF8", "--locale=C", "--no-sync"], check=True, capture_output=True, **_user())

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = [f"-c{setting}" for setting in ("listen_addresses=127.0.0.1", f"port={self.port}", *self.settings)]
        command = [str(_SERVER), "-D", str(self.folder / "data"), *settings, "-cunix_socket_directories="]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, **_user())
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                self.run("select 1")
                return
            except db.exc.OperationalError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    raise
                time.sleep(0.05)

    def let_in(self, network: str) -> None:
        """Hosts of a network, where it listens to them."""
        with (self.folder / "data" / "pg_hba.conf").open("a") as rules:
            rules.write(f"host all all {network} scram-sha-256\n")
        self.run("select pg_reload_conf()")

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """End it: SIGINT cuts all connections and ends in order, SIGQUIT is a crash."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(_START_SECONDS)
            self._process = None

    def url(self, database: str) -> str:
        """Of a database, as SQLAlchemy wants it."""
        secret = quote(PASSWORD, safe="")
        return f"postgresql+psycopg2://{USER}:{secret}@127.0.0.1:{self.port}/{database}"

    def run(self, statement: str, database: str = "postgres") -> list[Any]:
        """The rows of a statement, in a transaction of its own."""
        engine = db.create_engine(self.url(database), isolation_level="AUTOCOMMIT", poolclass=db.NullPool)
        with engine.connect() as connection:
            done = connection.exec_driver_sql(statement)
            return [*map(tuple, done)] if done.returns_rows else []

    def new_database(self) -> "Database":
        """An empty database."""
        name = f"test_{next(self._numbers)}"
        self.run(f"create database {name}")
        return Database(self, name)


@dataclass(frozen=True)
class Database:
    """A database of a server."""

    server: Server
    name: str

    @property
    def url(self) -> str:
        """As SQLAlchemy wants it."""
        return self.server.url(self.name)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that dagster_home/dagster-postgres.yaml reads."""
        return {
            "DAGSTER_PG_HOST": "127.0.0.1",
            "DAGSTER_PG_PORT": str(self.server.port),
            "DAGSTER_PG_DB": self.name,
            "DAGSTER_PG_USERNAME": USER,
            "DAGSTER_PG_PASSWORD": PASSWORD,
        }

    def rows(self, statement: str) -> list[Any]:
        """What a statement brings."""
        return self.server.run(statement, self.name)


@contextmanager
def server(*settings: str) -> Iterator[Server]:
    """A server in a folder of its own, for as long as the block lasts."""
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        made = Server(folder, probe.getsockname()[1], settings)
    try:
        made.make()
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder, ignore_errors=True)


def _user() -> dict[str, Any]:
    """Postgres refuses to run as root."""
    return {"user": _unprivileged(), "extra_groups": []} if os.getuid() == 0 else {}


def _unprivileged() -> str:
    import pwd

    return "postgres" if any(entry.pw_name == "postgres" for entry in pwd.getpwall()) else "nobody"
