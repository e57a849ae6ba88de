"""`mp export`: the same rows in each format, and an old file or a new one."""

import csv
import json
import os
from pathlib import Path
from typing import Any

import duckdb
import pytest

from mixpanel_assets.cli.main import run
from mixpanel_assets.storage.duckdb_file import DuckDBFile

ROWS = [
    ("a", "2026-01-02 03:04:05+00", '{"$name":"Ünï, \\"q\\" 🚀\\nnext","n":12345678901234567890}'),
    ("b,\n'\"", None, "{}"),
    ("", "1969-12-31 23:59:59.999+00", "[null]"),
]


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "mp.duckdb"
    monkeypatch.setenv("MP_DUCKDB_PATH", str(file))
    with DuckDBFile(file).transaction() as connection:
        connection.execute("create table profiles (distinct_id varchar, last_seen timestamptz, properties json)")
        connection.executemany("insert into profiles values (?, ?, ?)", ROWS)
        connection.execute("create view broken as select error('no such row') as x")
    return file


def exported(tmp_path: Path, kind: str) -> Path:
    assert run(["export", "profiles", "--to", str(tmp_path / "new" / "out"), "--format", kind]) == 0
    return tmp_path / "new" / "out" / f"profiles.{kind}"


def test_jsonl_has_one_object_per_row(database: Path, tmp_path: Path) -> None:
    lines = [json.loads(line) for line in exported(tmp_path, "jsonl").read_text().splitlines()]
    assert sorted((line["distinct_id"], json.dumps(line["properties"])) for line in lines) == sorted(
        (name, json.dumps(json.loads(properties))) for name, _, properties in ROWS
    )


def test_csv_is_read_by_other_readers(database: Path, tmp_path: Path) -> None:
    with exported(tmp_path, "csv").open(newline="") as file:
        rows: list[Any] = list(csv.DictReader(file))
    assert {row["distinct_id"]: row["properties"] for row in rows} == {name: text for name, _, text in ROWS}
    assert {row["last_seen"] for row in rows} == {"2026-01-02 03:04:05+00", "", "1969-12-31 23:59:59.999+00"}


def test_parquet_is_the_table(database: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = exported(tmp_path, "parquet")
    result = json.loads(capfd.readouterr().out)
    assert result == {"table": "profiles", "file": str(file), "rows": 3, "bytes": file.stat().st_size}
    with duckdb.connect(str(database)) as connection:
        same = f"from mixpanel.profiles except all from '{file}'"
        assert connection.execute(same).fetchall() == []
        [(kept,)] = connection.execute(f"select count(*) from '{file}'").fetchall()
    assert kept == len(ROWS)


def test_a_file_that_cannot_be_finished_is_not_there(
    database: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Red when DuckDB writes the file in place: it would be empty."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "broken.csv").write_text("of yesterday")
    assert run(["export", "broken", "--to", str(out), "--format", "csv"]) == 1
    assert "no such row" in capfd.readouterr().err
    assert [file.name for file in out.iterdir()] == ["broken.csv"]
    assert (out / "broken.csv").read_text() == "of yesterday"


@pytest.mark.parametrize(
    ("table", "to", "code", "says"),
    [
        ("profile", "out", 3, "there is no table mixpanel.profile: there are broken, profiles"),
        ('profiles" --', "out", 3, "there is no table"),
        ("profiles", "mp.duckdb", 1, "choose another folder with --to"),
    ],
)
def test_bad_input_is_one_line(
    database: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], table: str, to: str, code: int, says: str
) -> None:
    assert run(["export", table, "--to", str(tmp_path / to)]) == code
    out, err = capfd.readouterr()
    assert out == ""
    assert says in err.splitlines()[-1]
    assert "Traceback" not in err


def test_nothing_stored_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("MP_DUCKDB_PATH", str(tmp_path / "none.duckdb"))
    assert run(["export", "profiles", "--to", str(tmp_path)]) == 1
    assert "holds nothing of Mixpanel yet: sync first" in capfd.readouterr().err
    assert not (tmp_path / "none.duckdb").exists()


@pytest.mark.skipif(os.name == "nt", reason="modes of POSIX")
def test_the_file_is_its_owners(database: Path, tmp_path: Path) -> None:
    """Red with the intermediate file of DuckDB."""
    assert exported(tmp_path, "csv").stat().st_mode & 0o777 == 0o600
