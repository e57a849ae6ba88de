"""What is said of a DuckLake's errors that no server here brings about."""

import duckdb
import pytest

from mixpanel_assets.database_address import LakeAddress
from mixpanel_assets.storage.lake_errors import explained, is_not_there

pytestmark = pytest.mark.unit

_LAKE = LakeAddress("duckdb", "/data/c.ducklake", "s3://bucket/lake/")


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            duckdb.IOException("Could not set lock on file: Conflicting lock is held in /bin/python3 (PID 12)"),
            "12 (python",
        ),
        (duckdb.IOException('Failed to download extension "httpfs" at URL "http://x"'), "get its extension httpfs"),
        (
            duckdb.TransactionException("Transaction conflict - attempting to drop"),
            "so it is as it was: sync",
        ),
        (duckdb.IOException("Could not write file: No space left on device"), "free space, then sync again"),
        (
            duckdb.HTTPException("HTTP 403 (Forbidden)"),
            "cannot use s3://bucket/lake/ of ducklake:",
        ),
        (duckdb.ConversionException("odd\nrow"), "DuckDB refused (ducklake:duckdb:/data/c.ducklake is as it was): "),
    ],
)
def test_an_error_is_a_line_that_says_what_to_do(error: duckdb.Error, says: str) -> None:
    assert says in str(explained(error, _LAKE))
    assert "\n" not in str(explained(error, _LAKE))


def test_a_ducklake_that_nobody_made() -> None:
    assert is_not_there(duckdb.InvalidInputException("and creating a new DuckLake is explicitly disabled"))
    assert not is_not_there(duckdb.InvalidInputException("another"))
