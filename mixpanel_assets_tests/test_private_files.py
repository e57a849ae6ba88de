"""What is made is its owner's alone under the usual umask, in a home that everybody may read.

Belongs here: modes of files. What lies in them is checked elsewhere.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from mixpanel_assets import private_files
from mixpanel_assets.sandbox import Fault, Population, Sandbox
from mixpanel_assets.storage.duckdb_file import DuckDBFile
from mixpanel_assets.storage.staging import LocalStaging
from mixpanel_assets.streams.events import columns as event_columns
from mixpanel_assets.streams.events.query import EventsQuery
from mixpanel_assets.streams.events.staged import EventsFolder, RangeResult

pytestmark = [pytest.mark.process, pytest.mark.skipif(os.name == "nt", reason="modes are POSIX's")]

# What Dagster makes in its home.
DAGSTERS = {"history", "schedules", "storage", "logs", ".telemetry", ".logs_queue", ".nux"}


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def readable(folder: Path) -> dict[str, str]:
    """What others than the owner may use, but for Dagster's."""
    ours = (path for path in folder.rglob("*") if path.relative_to(folder).parts[0] not in DAGSTERS)
    modes = {str(path.relative_to(folder)): path.stat().st_mode for path in ours}
    return {name: oct(mode) for name, mode in modes.items() if mode & 0o077}


def names(folder: Path) -> set[str]:
    """Without the lock that processes take turns by."""
    return {path.name for path in folder.iterdir()} - {".x.duckdb.lock"}


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def run(home: Path, sandbox: Sandbox, *command: str) -> int:
    environment = {**os.environ, **sandbox.environment, "DAGSTER_HOME": str(home)}
    environment.pop("MP_DUCKDB_PATH", None)
    return subprocess.run(
        [sys.executable, "-m", *command], env=environment, capture_output=True, check=False
    ).returncode


@pytest.mark.parametrize("program", ["mixpanel_assets", "dagster"])
def test_all_that_syncs_leave_is_the_owners_alone(tmp_path: Path, program: str) -> None:
    """Red with any of them made by a plain open, mkdir or connect. The failing page keeps the staged ones."""
    home = tmp_path / "home"
    home.mkdir(0o755)
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n") if program == "dagster" else None
    faults = [
        Fault("engage", "status:403", page=2, times=None),
        Fault("engage", "rows-without-id", page=1, times=None),
        Fault("export", "status:403", from_date="2026-01-02", times=None),
        Fault("export", "error-line", from_date="2026-01-01", body='{"event":"","properties":{}}'),
    ]
    with Sandbox(Population(40, events_per_day=20), page_size=10, faults=faults) as sandbox:
        if program == "dagster":
            select = ("dagster", "asset", "materialize", "-m", "mixpanel_assets.definitions", "--select")
            run(home, sandbox, *select, "mixpanel/profiles")
            run(home, sandbox, *select, "mixpanel/events", "--partition-range", "2026-01-01...2026-01-02")
        else:
            days = ("--from", "2026-01-01", "--to", "2026-01-02", "--chunk-days", "1")
            assert run(home, sandbox, program, "fetch", "profiles", "-p") == 1
            assert run(home, sandbox, program, "fetch", "events", *days) == 1
    made = {path.relative_to(home).parts[0] for path in home.iterdir()}
    assert {"mixpanel_data.duckdb", "quota.sqlite", "staging", "run_locks", "export_starts"} <= made
    assert {path.name for path in (home / "staging").iterdir()} >= {"handles", "profiles"}
    assert list((home / "staging").rglob("*.jsonl"))
    with_yaml = readable(home)
    if program == "dagster":
        del with_yaml["dagster.yaml"]  # The test's own.
    assert with_yaml == {}


def test_the_log_and_what_is_spilled_are_too(tmp_path: Path) -> None:
    """Red when DuckDB makes them."""
    path = tmp_path / "x.duckdb"
    path.parent.chmod(0o755)
    with DuckDBFile(path).transaction() as connection:
        connection.execute("set memory_limit = '60MB'; set threads = 1")
        connection.execute("create table t as select range as i, repeat('x', 100) || range as s from range(500000)")
        connection.execute("create temp table sorted as select * from t order by s desc")
        connection.commit()
        connection.execute("insert into t values (1, 'a')")  # Into the log, as no checkpoint follows.
        made = names(tmp_path)
        assert made == {"x.duckdb", "x.duckdb.wal", "x.duckdb.tmp"}
        assert list((tmp_path / "x.duckdb.tmp").iterdir())
        assert {found: mode(tmp_path / found) for found in made if mode(tmp_path / found) & 0o077} == {}
        connection.begin()
    assert names(tmp_path) == {"x.duckdb"}


def test_a_transaction_that_fails_leaves_no_log(tmp_path: Path) -> None:
    path = tmp_path / "x.duckdb"
    for _ in range(2):
        with pytest.raises(RuntimeError), DuckDBFile(path).transaction():
            raise RuntimeError
        assert names(tmp_path) == {"x.duckdb"}


def test_a_file_that_others_may_read_stays_so(tmp_path: Path) -> None:
    """Somebody has opened it to a group on purpose. Its log is for that group too."""
    path = tmp_path / "x.duckdb"
    duckdb.connect(str(path)).close()
    path.chmod(0o640)
    with DuckDBFile(path).transaction() as connection:
        connection.execute("create table t (i int)")
        assert mode(tmp_path / "x.duckdb.wal") == 0o640
    with DuckDBFile(path).transaction() as connection:
        connection.execute("insert into t values (1)")
    assert mode(path) == 0o640


def test_folders_above_are_the_owners_too_and_those_there_stay(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir(0o750)
    private_files.make_folder(tmp_path / "there" / "a" / "b")
    private_files.make_folder(tmp_path / "there")
    assert [mode(tmp_path / name) for name in ("there", "there/a", "there/a/b")] == [0o750, 0o700, 0o700]
    (tmp_path / "file").touch()
    for name in ("file", "file/within"):
        with pytest.raises(OSError, match="file"):
            private_files.make_folder(tmp_path / name)


def test_a_staged_range_is_too(tmp_path: Path) -> None:
    """Red when the file keeps the mode that DuckDB gave it."""
    folder = EventsFolder(LocalStaging(tmp_path), "run")
    with folder.new_file() as (file, stream), folder.new_name() as columns:
        stream.write(b'{"event":"a","properties":{"time":1}}\n')
        stream.flush()
        assert mode(file) == 0o600
        assert event_columns.write_columns(file, 1, columns, "events")
        staged = folder.sign(folder.place(columns, RangeResult("2026-01-01", "2026-01-01", "run", EventsQuery()), ()))
    assert mode(folder.events_file(staged)) == 0o600
    assert readable(tmp_path) == {}
