"""The copy for readers who never close: renewed whole after each sync, or left as it was with a warning."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from mixpanel_assets.errors import ConfigurationError
from mixpanel_assets.sandbox import Population, Sandbox
from mixpanel_assets.storage import copy_file, read_copy
from mixpanel_assets.storage.duckdb_file import DuckDBFile
from mixpanel_assets.storage.warehouse import Warehouse
from mixpanel_assets_tests.pipeline import Pipeline

pytestmark = pytest.mark.process

_KEEP_OPEN = """
import duckdb, sys
connection = duckdb.connect(sys.argv[1], read_only=True)
for _ in sys.stdin:
    query = "select count(*), min(properties::varchar) is not null from mixpanel.profiles"
    print(connection.execute(query).fetchall(), flush=True)
"""


@pytest.fixture
def copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MP_READ_COPY", str(tmp_path / "copy.duckdb"))
    return tmp_path / "copy.duckdb"


@pytest.fixture
def pipeline(tmp_path: Path, copy: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipeline]:
    with (
        dg.DagsterInstance.ephemeral() as instance,
        Sandbox(Population(profiles=45, seed=2), page_size=10) as sandbox,
    ):
        yield Pipeline.start(instance, sandbox, tmp_path / "home", monkeypatch)


def rows(path: Path) -> int:
    with duckdb.connect(str(path), read_only=True) as connection:
        [(number,)] = connection.execute("select count(*) from mixpanel.t").fetchall()
        return int(number)


def append(warehouse: Warehouse) -> None:
    with warehouse.transaction() as connection:
        connection.execute("create table if not exists t (n integer)")
        connection.execute("insert into t select range from range(1000)")


def test_a_reader_that_never_closes_and_one_that_comes_later(pipeline: Pipeline, copy: Path) -> None:
    """Red when the copy is written in place (the reader fails), and when readers have to close for a sync."""
    assert pipeline.sync().success
    with subprocess.Popen(
        [sys.executable, "-c", _KEEP_OPEN, str(copy)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as reader:

        def sees() -> str:
            assert reader.stdin is not None
            assert reader.stdout is not None
            reader.stdin.write("look\n")
            reader.stdin.flush()
            return reader.stdout.readline().strip()

        assert sees() == "[(45, True)]"
        pipeline.sandbox.population.add("late", {"plan": "pro"})
        second = pipeline.sync()
        assert second.success, second.words
        assert sees() == "[(45, True)]"
        reader.kill()
    with duckdb.connect(str(copy), read_only=True) as connection:
        assert connection.execute("select count(*) from mixpanel.profiles").fetchall() == [(46,)]


def test_what_is_copied_is_the_last_commit_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    """Red without the checkpoint, while another connection of the process keeps the log; and with the mode of a file
    that may be written."""
    warehouse = DuckDBFile(tmp_path / "x.duckdb", read_copy=tmp_path / "copy.duckdb")
    append(warehouse)
    with duckdb.connect(str(warehouse.path)):
        append(warehouse)
    assert rows(tmp_path / "copy.duckdb") == 2000
    assert stat.S_IMODE((tmp_path / "copy.duckdb").stat().st_mode) == 0o400
    (tmp_path / "copy.duckdb").chmod(0o444)
    append(warehouse)
    assert rows(tmp_path / "copy.duckdb") == 3000
    assert stat.S_IMODE((tmp_path / "copy.duckdb").stat().st_mode) == 0o444


def test_what_killed_copies_left_is_swept(tmp_path: Path) -> None:
    """Red without the sweep: each killed sync leaves a file as large as the database."""
    (tmp_path / ".copy.duckdb.0badcafe.new").write_bytes(b"half a copy")
    append(DuckDBFile(tmp_path / "x.duckdb", read_copy=tmp_path / "copy.duckdb"))
    assert [path.name for path in tmp_path.iterdir() if ".new" in path.name] == []


def test_a_copy_that_fails_is_a_warning_and_the_old_one_stays(pipeline: Pipeline, copy: Path, tmp_path: Path) -> None:
    """Red when the copy's failure is the sync's, and when the half-made copy is left or swapped in."""
    assert pipeline.sync().success
    before = copy.read_bytes()
    broken = tmp_path / "copy_file.py"
    broken.write_text("import sys; open(sys.argv[2], 'w').write('half'); sys.exit('No space left on device')")
    pipeline.sandbox.population.add("late", {"plan": "pro"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(copy_file, "__file__", str(broken))
        synced = pipeline.sync()
    assert synced.success, synced.words
    said = f"all is stored, but the copy for readers, {copy}, stays as it was: No space left on device"
    assert said in synced.words
    assert copy.read_bytes() == before
    assert pipeline.query("select count(*) from mixpanel.profiles") == [(46,)]
    assert sorted(path.name for path in tmp_path.glob("*copy*")) == ["copy.duckdb", "copy_file.py"]


@pytest.mark.skipif(os.name == "nt", reason="POSIX drops locks where a file is closed")
def test_the_database_stays_locked_while_it_is_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Red when this process reads the file itself: closing it drops DuckDB's lock, and another may write."""
    outcome = []
    renew = read_copy.renew

    def renewed_and_looked_at(copy: Path, database: Path, connection: duckdb.DuckDBPyConnection) -> str | None:
        reason = renew(copy, database, connection)
        command = [sys.executable, "-c", "import duckdb, sys; duckdb.connect(sys.argv[1])", str(database)]
        outcome.append(subprocess.run(command, capture_output=True, text=True).stderr)
        return reason

    monkeypatch.setattr("mixpanel_assets.storage.duckdb_file.renew", renewed_and_looked_at)
    append(DuckDBFile(tmp_path / "x.duckdb", read_copy=tmp_path / "copy.duckdb"))
    assert "Could not set lock on file" in outcome[0]


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("no/copy.duckdb", "of MP_READ_COPY does not exist: make it, or choose another"),
        ("x.duckdb", "MP_READ_COPY is the DuckDB file itself"),
        ("theirs.duckdb", "is no copy of ours, as it can be written: move it away, or set MP_READ_COPY"),
    ],
)
def test_a_place_that_will_not_do_is_refused_before_anything_is_fetched(tmp_path: Path, place: str, says: str) -> None:
    """Red without the check: somebody's own database was replaced by the copy."""
    duckdb.connect(str(tmp_path / "theirs.duckdb")).close()
    warehouse = DuckDBFile(tmp_path / "x.duckdb", read_copy=tmp_path / place)
    with pytest.raises(ConfigurationError, match=says):
        warehouse.check_ready()


def test_a_copy_without_the_kernels_help(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Red when what the kernel refuses, or gives up half-way, is not copied by hand."""
    (tmp_path / "origin").write_bytes(os.urandom(3_000_000))
    whole, calls = getattr(os, "copy_file_range", None), []

    def half_way(source: int, target: int, count: int) -> int:
        calls.append(count)
        if whole is None or len(calls) > 1:
            raise OSError("not here")
        return int(whole(source, target, 1_000_000))

    monkeypatch.setattr(os, "copy_file_range", half_way, raising=False)
    copy_file.main(str(tmp_path / "origin"), str(tmp_path / "copy"))
    assert len(calls) == 2
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "origin").read_bytes()
