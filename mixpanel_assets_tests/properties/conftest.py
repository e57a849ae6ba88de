"""A database in memory, its schema as in a warehouse."""

from collections.abc import Iterator

import duckdb
import pytest

from mixpanel_assets_tests.properties.rows import Connection


@pytest.fixture
def connection() -> Iterator[Connection]:
    with duckdb.connect() as connection:
        connection.execute("create schema mixpanel; use memory.mixpanel")
        yield connection
