"""Tables in a DuckLake are those of a file; and what a DuckLake has that a file has not."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from mixpanel_assets_tests import postgres
from mixpanel_assets_tests.buckets import BUCKET, Buckets, buckets
from mixpanel_assets_tests.duckdb_extensions import environment

pytestmark = [pytest.mark.process, postgres.needs_postgres]

_PROGRAM = [sys.executable, "-m", "mixpanel_assets_tests.storage.lake_program"]
# As anybody reads a DuckLake: no word of ours. A line asks for the rows of one transaction.
_READER = """
import duckdb, json, sys
connection = duckdb.connect()
connection.execute(f"attach 'ducklake:{sys.argv[1]}' as theirs")
one = lambda query: connection.execute(query).fetchone()[0]
table = "theirs.mixpanel.profiles"
print("attached", flush=True)
stays = False
for line in sys.stdin:
    if not stays:
        connection.begin()
    rows = [one(f"select count(*) from {table}"), one(f"select count(distinct distinct_id) from {table}")]
    print(json.dumps(rows), flush=True)
    stays = line.strip() == "stay"
    if not stays:
        connection.commit()
last = one("select max(snapshot_id) from theirs.snapshots()")
before = one(f"select count(*) from {table} at (version => {last - 1})")
rows = connection.execute(f"select distinct_id, count(*) from {table} group by 1").fetchall()
print(json.dumps([rows, before]))
"""


@pytest.fixture(scope="module")
def server() -> Iterator[postgres.Server]:
    with postgres.server() as running:
        yield running


@pytest.fixture(scope="module")
def s3() -> Iterator[Buckets]:
    with buckets() as running:
        yield running


def in_postgres(server: postgres.Server, data: str) -> dict[str, str]:
    """A DuckLake with its catalogue in a new database."""
    database = server.new_database()
    where = f"host=127.0.0.1 port={server.port} dbname={database.name} user={postgres.USER}"
    return {"MP_DATABASE": f"ducklake:postgres:{where}", "MP_DATA_PATH": data, "PGPASSWORD": postgres.PASSWORD}


def program(*arguments: str, **variables: str) -> Any:
    done = subprocess.run(
        [*_PROGRAM, *arguments], env={**environment(), **variables}, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_all_streams_are_as_in_a_file(server: postgres.Server, s3: Buckets, tmp_path: Path) -> None:
    """With a partial failure and its retry, checks, catalogues, typed views, status and export. Red with a primary key,
    a BIT or compressed columns in the tables."""
    lake = in_postgres(server, f"s3://{BUCKET}/lake")
    done = program("sync", str(tmp_path), LAKE=json.dumps(lake), **s3.environment)
    owed: list[Any]
    nothing: list[Any]
    owed, nothing = [[1], [["2026-01-02", "2026-01-02"]]], [[], []]
    assert done["file"]["codes"] == [1, 1, *[0] * 4, owed, nothing]
    assert len(done["file"]["tables"]) > 15
    assert done["lake"] == done["file"]
    assert s3.keys("lake/mixpanel/events/")
    assert not (tmp_path / "lake" / "mixpanel_data.duckdb").exists()


@pytest.fixture(params=["postgres", "sqlite"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, str]:
    if request.param == "sqlite":
        return {"MP_DATABASE": f"ducklake:sqlite:{tmp_path}/catalogue.sqlite"}
    return in_postgres(request.getfixturevalue("server"), f"{tmp_path}/data")


@contextmanager
def reader(place: dict[str, str]) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-c", _READER, place["MP_DATABASE"].removeprefix("ducklake:")]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env={**environment(), **place}, **streams) as process:  # type: ignore[call-overload]
        assert process.stdout is not None
        assert process.stdout.readline() == "attached\n"
        yield process
        process.kill()


def ask(process: "subprocess.Popen[str]", line: str = "") -> Any:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{line}\n")
    process.stdin.flush()
    return json.loads(process.stdout.readline())


def putting(place: dict[str, str], *arguments: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "mixpanel_assets_tests.storage.lake_writer", *arguments]
    return subprocess.Popen(command, env={**environment(), **place})


def test_readers_stay_while_two_write_and_one_is_killed(place: dict[str, str], tmp_path: Path) -> None:
    """Red without turns: one of two writers is refused. In SQLite red without its log written ahead: who reads a
    transaction keeps a writer from committing."""
    assert putting(place, str(tmp_path), "first", "1").wait() == 0
    with reader(place) as process:
        assert ask(process, "stay") == [2, 2]
        writers = [putting(place, str(tmp_path), name, "4") for name in ("a", "b")]
        assert [writer.wait(60) for writer in writers] == [0, 0]
        assert ask(process) == [2, 2]  # It reads the transaction that it began.
        assert ask(process) == [10, 10]
        assert putting(place, str(tmp_path), "killed", "1", "12").wait() == -9
        assert ask(process) == [10, 10]
        assert putting(place, str(tmp_path), "last", "1").wait(60) == 0
        assert process.stdin is not None
        process.stdin.close()
        assert process.stdout is not None
        rows, before = json.loads(process.stdout.readline())
    names = [*(f"{name} {number}" for name in "ab" for number in range(4)), "first 0", "last 0", "shared"]
    assert sorted(rows) == [[name, 1] for name in names]
    assert before == 10


def test_a_profile_of_aws_and_states_that_are_forgotten(s3: Buckets, tmp_path: Path) -> None:
    """Red when DuckDB alone looks for an account, as it knows no profile; and when earlier states stay for ever."""
    with s3.guarded("s3:*") as account:
        profile = (
            "[default]\naws_access_key_id = {AWS_ACCESS_KEY_ID}\naws_secret_access_key = {AWS_SECRET_ACCESS_KEY}\n"
        )
        (tmp_path / "credentials").write_text(profile.format(**account))
        place = {
            "MP_DATABASE": f"ducklake:sqlite:{tmp_path}/c.sqlite",
            "MP_DATA_PATH": f"s3://{BUCKET}/profile",
            "AWS_ENDPOINT_URL": account["AWS_ENDPOINT_URL"],
            "AWS_REGION": account["AWS_REGION"],
            "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
        }
        assert putting(place, str(tmp_path), "a", "3").wait() == 0
        [states, rows], left, said = program("forget", str(tmp_path), **place)
        assert (states > 3, rows, left, said) == (True, 4, [1, 4], [])
    assert s3.keys("profile/") == ["profile/mixpanel-assets-can-write.csv"]


def test_what_is_wrong_is_said_in_a_line(server: postgres.Server, s3: Buckets, tmp_path: Path, free_port: int) -> None:
    """Before the first request, and without a password."""
    good = in_postgres(server, f"{tmp_path}/data")
    closed = good["MP_DATABASE"].replace(str(server.port), str(free_port))
    (tmp_path / "text").write_text("no catalogue\n" * 100)
    sqlite, other = f"ducklake:sqlite:{tmp_path}/lake.sqlite", f"{tmp_path}/other"
    no_database = good["MP_DATABASE"].replace("dbname=", "dbname=nope application_name=")
    bucket = {"MP_DATABASE": f"ducklake:sqlite:{tmp_path}/s3.sqlite", **s3.environment}
    no_bucket = {"MP_DATABASE": f"ducklake:sqlite:{tmp_path}/s3-2.sqlite", **s3.environment}
    cases = {
        "": good,
        "password authentication failed": {**good, "PGPASSWORD": "geheim"},
        "Connection refused": {**good, "MP_DATABASE": closed},
        'database "nope" does not exist': {**good, "MP_DATABASE": no_database},
        f"lie in {tmp_path}/data/, not in {other}/: set MP_DATA_PATH": {**good, "MP_DATA_PATH": other},
        "of MP_DATABASE does not exist: make it": {"MP_DATABASE": f"ducklake:sqlite:{tmp_path}/no/lake.sqlite"},
        "is no catalogue of a DuckLake": {"MP_DATABASE": f"ducklake:sqlite:{tmp_path}/text"},
        "text is no catalogue of a DuckLake: set MP_DATABASE": {"MP_DATABASE": f"ducklake:{tmp_path}/text"},
        "cannot make /dev/null/x": {"MP_DATABASE": sqlite, "MP_DATA_PATH": "/dev/null/x"},
        f"cannot use s3://{BUCKET}/x/": {
            **bucket,
            "MP_DATA_PATH": f"s3://{BUCKET}/x",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port}",
        },
        "cannot use s3://no-such-bucket/x/": {**no_bucket, "MP_DATA_PATH": "s3://no-such-bucket/x"},
    }
    said = program("check", json.dumps(list(cases.values())))
    for expected, line in zip(cases, said, strict=True):
        assert expected in line
        assert "\n" not in line
        assert postgres.PASSWORD not in line
        assert "geheim" not in line
