"""S3 as DuckDB is told of it: its own reading of the environment, and what that leaves out.

DuckDB itself reads AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN and AWS_REGION, and secrets that a
person has made in it for good. It reads no AWS_ENDPOINT_URL, and a profile or a role only if it is asked to.
"""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

from urllib.parse import urlsplit

import duckdb

from mixpanel_assets import settings
from mixpanel_assets.storage.sql_text import sql_text


def set_up(connection: duckdb.DuckDBPyConnection, url: str) -> None:
    """See that the connection can use a bucket, by the environment.

    Raises:
        duckdb.Error: its extension for S3 cannot be loaded.
    """
    said = settings.s3()
    connection.execute("load httpfs")
    elsewhere = {
        "endpoint": sql_text(said.endpoint),
        "use_ssl": str(said.is_encrypted).lower(),
        "url_style": "'path'",
    }
    if said.endpoint:
        for name, value in elsewhere.items():
            connection.execute(f"set s3_{name} = {value}")
    if not said.has_key and not _has_secret(connection, url):
        options = [f"{name} {value}" for name, value in elsewhere.items()] if said.endpoint else []
        how = ", ".join(["type s3", "provider credential_chain", f"scope {sql_text(_bucket(url))}", *options])
        connection.execute(f"create or replace secret mixpanel_data ({how})")


def _bucket(url: str) -> str:
    return f"s3://{urlsplit(url).netloc}"


def _has_secret(connection: duckdb.DuckDBPyConnection, url: str) -> bool:
    return bool(connection.execute(f"from which_secret({sql_text(url)}, 's3')").fetchall())
