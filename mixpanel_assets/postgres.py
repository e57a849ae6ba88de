"""The Postgres that Dagster uses, for what of ours lies there too.

Belongs here: whether there is one, connections to it, and what is wrong with it in words. Does not belong here:
Dagster's own use of it (postgres_storage.py), and what of ours lies in it.

Nothing of Postgres is imported before a storage is seen to be one.
"""

import hashlib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import sqlalchemy as db

from mixpanel_assets.errors import InstanceError

# Dagster's own default is psycopg2, and SQLAlchemy 2.1 means psycopg 3 when nothing is said.
DRIVER = "postgresql+psycopg2"
CONNECT_SECONDS = 3
# Both ends notice within 25 s that the other is gone without a word: a host without power, a cut network.
_KEEPALIVE = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 15_000}
# What an older server does not know, it is not told.
_SERVERS_KEEPALIVE = """
select set_config(name, value, false) from pg_settings join (values ('tcp_keepalives_idle', '10'),
    ('tcp_keepalives_interval', '5'), ('tcp_keepalives_count', '3'), ('tcp_user_timeout', '15000')) wanted (name, value)
    using (name)
"""
_LONGEST = 300
_REASONS = (
    (re.compile("password authentication failed|no password supplied"), "it refuses the user or the password"),
    (re.compile(r"database \S+ does not exist"), "it has no such database: create it"),
    (re.compile(r"role \S+ does not exist"), "it has no such user"),
    (re.compile("no pg_hba.conf entry"), "it does not let this host in (pg_hba.conf)"),
    (re.compile("could not translate host name"), "no such host"),
    (re.compile("Connection refused"), "nobody listens there"),
    (re.compile("timeout expired|timed out|No route|unreachable"), "it does not answer"),
    (re.compile("permission denied for schema"), "the user may not make tables in it"),
    (re.compile("too many clients|remaining connection slots"), "it has no connection left: raise max_connections"),
    (re.compile("starting up|shutting down"), "it is just starting or ending: try again"),
)


def is_postgres(storage: object) -> bool:
    """Whether a storage of Dagster's is dagster-postgres's."""
    module = sys.modules.get("dagster_postgres")
    return module is not None and isinstance(
        storage, (module.PostgresEventLogStorage, module.PostgresRunStorage, module.PostgresScheduleStorage)
    )


def engine_of(storage: Any, **options: Any) -> db.Engine:
    """As `engine`, to the Postgres of a storage of dagster-postgres's."""
    return engine(storage.postgres_url, storage._token_provider, **options)


def engine(url: str, token_provider: Any = None, **options: Any) -> db.Engine:
    """Connections of ours to Postgres, which commit statements one by one. They are closed by whoever lets go of them,
    unless `options` name a pool.

    `token_provider` is dagster-postgres's, for clouds whose passwords last an hour.
    """
    from dagster_postgres.utils import create_pg_engine

    settings = {
        "isolation_level": "AUTOCOMMIT",
        "poolclass": db.NullPool,
        "connect_args": {"connect_timeout": CONNECT_SECONDS, **_KEEPALIVE},
    }
    made = create_pg_engine(url, token_provider, **{**settings, **options})
    db.event.listen(made, "connect", _keep_alive)
    return made


@contextmanager
def named(url: str) -> Iterator[None]:
    """What is wrong with Postgres as one line.

    Raises:
        InstanceError: it cannot be used.
    """
    try:
        yield
    except (db.exc.ArgumentError, ValueError):
        # Its own words may hold a part of the password.
        raise InstanceError(
            "the URL of Postgres is none: it is postgresql://user:password@host:5432/database"
        ) from None
    except db.exc.SQLAlchemyError as error:
        raise InstanceError(explained(error, url)) from None


def lock_key(name: str) -> int:
    """The number by which Postgres knows an advisory lock."""
    return int.from_bytes(hashlib.sha256(f"mixpanel_assets {name}".encode()).digest()[:8], "big", signed=True)


def explained(error: BaseException, url: str | db.URL) -> str:
    """What is wrong with the database at a URL, in one line, without its password."""
    at = db.make_url(url)
    text = " ".join(str(getattr(error, "orig", None) or error).split())
    if at.password:
        text = text.replace(str(at.password), "***")
    reason = next((words for pattern, words in _REASONS if pattern.search(text)), text[:_LONGEST])
    return f"Postgres at {at.host}:{at.port or 5432}, database {at.database}, user {at.username}: {reason}"


def _keep_alive(connection: Any, _: object) -> None:
    with connection.cursor() as cursor:
        cursor.execute(_SERVERS_KEEPALIVE)


def create_table(connection: db.Connection, name: str, *statements: str) -> None:
    """Make a table of ours where it is not there; two hosts at once would refuse each other."""
    there = db.text("select to_regclass(:name)")
    if connection.execute(there, {"name": name}).scalar() is not None:
        return
    key = {"key": lock_key(f"table {name}")}
    connection.execute(db.text("select pg_advisory_lock(:key)"), key)
    try:
        if connection.execute(there, {"name": name}).scalar() is None:
            for statement in statements:
                connection.exec_driver_sql(statement)
    finally:
        connection.execute(db.text("select pg_advisory_unlock(:key)"), key)
