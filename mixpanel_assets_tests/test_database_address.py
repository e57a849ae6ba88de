"""What a setting may name as the place of the tables, and what is said of the rest."""

from pathlib import Path

import pytest

from mixpanel_assets import settings
from mixpanel_assets.database_address import LakeAddress, database_address
from mixpanel_assets.errors import ConfigurationError
from mixpanel_assets.resources import warehouse_at
from mixpanel_assets.storage.duckdb_file import DuckDBFile
from mixpanel_assets.storage.ducklake import DuckLake

pytestmark = pytest.mark.unit

_POSTGRES = "postgres:host=db dbname=lake user=me"


@pytest.mark.parametrize(
    ("text", "data", "kind", "catalogue", "data_path"),
    [
        (f"ducklake:{_POSTGRES}", "s3://bucket/folder", "postgres", _POSTGRES[9:], "s3://bucket/folder/"),
        ("ducklake:postgres:postgresql://me@db/lake", "/data", "postgres", "postgresql://me@db/lake", "/data/"),
        ("ducklake:sqlite:/data/c.sqlite", "", "sqlite", "/data/c.sqlite", ""),
        ("ducklake:/data/c.ducklake", "", "duckdb", "/data/c.ducklake", ""),
        ("ducklake:duckdb:/data/c.ducklake", "s3://bucket", "duckdb", "/data/c.ducklake", "s3://bucket/"),
    ],
)
def test_a_ducklake_is_taken(text: str, data: str, kind: str, catalogue: str, data_path: str) -> None:
    assert database_address("X", text, "Y", data) == LakeAddress(kind, catalogue, data_path)


@pytest.mark.parametrize(
    ("text", "data", "says"),
    [
        (f"ducklake:{_POSTGRES} password=geheim", "/data", "X must not hold a password: set PGPASSWORD"),
        ("ducklake:postgres:postgresql://me:geheim@db/lake", "/data", "X must not hold a password"),
        (f"ducklake:{_POSTGRES}", "", "Y not set: with a catalogue in Postgres it says where the data lie"),
        ("ducklake:", "", "X names no catalogue: write ducklake:sqlite:FILE"),
        ("ducklake:mysql:db", "", "X begins with 'mysql:'"),
        ("ducklake:sqlite:c.sqlite", "s3://key:geheim@bucket", "Y must not hold credentials: set AWS_ACCESS_KEY_ID"),
        ("ducklake:sqlite:c.sqlite", "s3://bucket?s3_secret_access_key=geheim", "Y must not hold credentials"),
        ("ducklake:sqlite:c.sqlite", "s3://", "Y names no bucket"),
        ("ducklake:sqlite:c.sqlite", "gs://bucket", "Y begins with 'gs:'"),
        ("x.duckdb", "/data", "Y is set, and X names no DuckLake"),
        ("md:sales", "", "X begins with 'md:', and MotherDuck is untried"),
    ],
)
def test_what_is_none_is_refused_in_a_line(text: str, data: str, says: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        database_address("X", text, "Y", data)
    assert str(error.value).startswith(says)
    assert "geheim" not in str(error.value)
    assert "\n" not in str(error.value)


def test_the_environment_names_one_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MP_DATABASE", f"{tmp_path}/x.duckdb")
    assert settings.database() == tmp_path / "x.duckdb"
    assert settings.former_duckdb_path() is None
    monkeypatch.setenv("MP_DUCKDB_PATH", f"{tmp_path}/y.duckdb")
    with pytest.raises(ConfigurationError, match="MP_DATABASE and MP_DUCKDB_PATH are both set"):
        settings.database()
    monkeypatch.delenv("MP_DUCKDB_PATH")
    monkeypatch.setenv("MP_DATABASE", f"ducklake:{tmp_path}/x.ducklake")
    assert isinstance(warehouse_at("", print), DuckLake)
    assert isinstance(warehouse_at(f"{tmp_path}/y.duckdb", print), DuckDBFile)
    monkeypatch.setenv("MP_READ_COPY", f"{tmp_path}/copy.duckdb")
    with pytest.raises(ConfigurationError, match="a DuckLake needs none: unset it"):
        warehouse_at("", print)
