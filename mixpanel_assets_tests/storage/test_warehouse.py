"""The DuckDB file: opened, waited for, refused with a line that says what to do. Its transactions are tested where
tables are published (streams/snapshot/test_load.py), locks of other processes in test_crash.py."""

import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pytest

from mixpanel_assets.errors import Cancelled, WarehouseError
from mixpanel_assets.stopping import stoppable
from mixpanel_assets.storage import duckdb_file as database
from mixpanel_assets.storage import process_turns
from mixpanel_assets.storage import warehouse as warehouse_module
from mixpanel_assets.storage.duckdb_errors import explained
from mixpanel_assets.storage.duckdb_file import DuckDBFile
from mixpanel_assets.storage.warehouse import compression, count, table_exists

pytestmark = pytest.mark.process


def make(path: Path) -> Path:
    with DuckDBFile(path).transaction() as connection:
        connection.execute("create table t as select range as n from range(100000)")
    return path


@pytest.mark.parametrize(
    "name", ["mixpanel.duckdb", "mixpanel_data.duckdb", "data.db", 'we"ird name.duckdb', "main.duckdb", "ключ.duckdb"]
)
def test_tables_lie_in_schema_mixpanel_whatever_the_file_is_called(tmp_path: Path, name: str) -> None:
    # Red without `use`: they lie in schema main. Red with an unquoted catalog: the names with odd characters.
    warehouse = DuckDBFile(make(tmp_path / name))
    with warehouse.reading() as connection:
        assert count(connection, "select count(*) from t") == 100_000
        assert table_exists(connection, "t")
        assert not table_exists(connection, "profiles")
    with duckdb.connect(str(tmp_path / name)) as connection:
        assert connection.execute("select table_schema from information_schema.tables").fetchall() == [("mixpanel",)]


@pytest.mark.parametrize(
    ("version", "clause"), [("v1.0.0", ""), ("v1.2.0", "using compression zstd"), ("latest", "using compression zstd")]
)
def test_large_texts_are_compressed_where_the_file_can(tmp_path: Path, version: str, clause: str) -> None:
    """Red without the look at the version: DuckDB 2.0 refuses the clause in the first file."""
    path = tmp_path / "x.duckdb"
    duckdb.connect(str(path), config={"storage_compatibility_version": version}).close()
    with DuckDBFile(path).transaction() as connection:
        assert compression(connection) == clause
        connection.execute(f"create table t (text varchar {compression(connection)})")
        connection.execute("insert into t select repeat('large ', 1000) || range from range(5000)")
    with DuckDBFile(path).reading() as connection:
        [(ways,)] = connection.execute(
            "select list_sort(list(distinct compression)) from pragma_storage_info('t') where segment_type = 'VARCHAR'"
        ).fetchall()
        assert ("ZSTD" in ways) == bool(clause)


@pytest.mark.parametrize("tag", [None, "", "unknown", "v0.10.3", "v1.1.9+"])
def test_a_file_that_does_not_say_its_version_is_not_compressed(
    monkeypatch: pytest.MonkeyPatch, tag: str | None
) -> None:
    monkeypatch.setattr(warehouse_module, "_STORAGE", "select " + ("null" if tag is None else f"'{tag}'"))
    with duckdb.connect() as connection:
        assert compression(connection) == ""


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), WarehouseError("x")])
def test_any_error_rolls_back_and_closes(tmp_path: Path, error: BaseException) -> None:
    path = make(tmp_path / "x.duckdb")

    def drop_and_fail() -> None:
        with DuckDBFile(path).transaction() as connection:
            connection.execute("drop table t")
            raise error

    with pytest.raises(type(error)):
        drop_and_fail()
    # Other settings are refused by DuckDB while a connection is left open.
    with duckdb.connect(str(path), read_only=True) as connection:
        assert connection.execute("select count(*) from mixpanel.t").fetchall() == [(100_000,)]


def test_a_run_that_was_asked_to_stop_stores_nothing_any_more(tmp_path: Path) -> None:
    """Red without the look before the commit: the run had said that the table is as it was."""
    path = make(tmp_path / "x.duckdb")
    stop = threading.Event()

    def publish() -> None:
        with stoppable(stop), DuckDBFile(path).transaction() as connection:
            connection.execute("drop table t")
            stop.set()

    with pytest.raises(Cancelled, match="is as it was"):
        publish()
    with DuckDBFile(path).reading() as connection:
        assert count(connection, "select count(*) from t") == 100_000


def test_writers_of_one_process_take_turns(tmp_path: Path) -> None:
    # Red without _turn: the second one's commit is a conflict.
    path = make(tmp_path / "x.duckdb")
    began, order = threading.Barrier(2), []

    def write(name: str) -> None:
        began.wait()
        with DuckDBFile(path).transaction() as connection:
            order.append(f"{name} in")
            connection.execute("update t set n = n + 1")
            time.sleep(0.05)
            order.append(f"{name} out")

    threads = [threading.Thread(target=write, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert order in (["a in", "a out", "b in", "b out"], ["b in", "b out", "a in", "a out"])
    with DuckDBFile(path).reading() as connection:
        assert count(connection, "select min(n) from t") == 2


class TestRefusals:
    """Seen red: a folder that does not exist without is_dir of its parent, and a damaged file when it is taken for a
    locked one.
    """

    def check(self, path: Path, says: str) -> None:
        said: list[str] = []
        with pytest.raises(WarehouseError) as caught:
            DuckDBFile(path, said.append).check_ready()
        message = str(caught.value)
        assert says in message
        assert str(path.parent) in message
        assert "\n" not in message
        assert said == []  # nothing was waited for

    def test_a_folder_that_does_not_exist(self, tmp_path: Path) -> None:
        self.check(tmp_path / "no" / "x.duckdb", "does not exist: make it, or set MP_DUCKDB_PATH")

    @pytest.mark.parametrize("name", ["notes.txt", "notes.csv"])
    @pytest.mark.parametrize("content", [b"", b"x", b"distinct_id,properties\n" * 1000])
    def test_a_file_that_is_no_database(self, tmp_path: Path, content: bytes, name: str) -> None:
        # A .csv is red without the look at what was opened: DuckDB makes it a view in memory, and the sync is lost.
        path = tmp_path / name
        path.write_bytes(content)
        self.check(path, "is not a DuckDB database: set MP_DUCKDB_PATH to another file")
        assert path.read_bytes() == content

    def test_a_damaged_database_is_not_taken_for_a_locked_one(self, tmp_path: Path) -> None:
        # "Corrupt ... block": red when any word with "lock" in it means a lock, 5 s later.
        path = make(tmp_path / "clock.duckdb")
        content = bytearray(path.read_bytes())
        content[4096 : 3 * 4096] = b"\x01" * (2 * 4096)
        path.write_bytes(content)
        self.check(path, "is damaged: restore it, or move it away and sync anew")

    @pytest.mark.skipif(not Path("/sys/kernel").is_dir(), reason="a folder that even root cannot write: Linux only")
    def test_a_folder_that_cannot_be_written(self) -> None:
        self.check(Path("/sys/kernel/x.duckdb"), "cannot write in /sys/kernel (Permission denied): set MP_DUCKDB_PATH")

    def test_nothing_synced_yet(self, tmp_path: Path) -> None:
        path = tmp_path / "x.duckdb"
        duckdb.connect(str(path)).close()
        with (
            pytest.raises(WarehouseError, match="holds nothing of Mixpanel yet: sync first"),
            DuckDBFile(path).reading(),
        ):
            pass


def test_a_check_leaves_nothing_behind(tmp_path: Path) -> None:
    DuckDBFile(tmp_path / "x.duckdb").check_ready()
    assert list(tmp_path.iterdir()) == []


def test_a_new_file_appears_without_leftovers(tmp_path: Path) -> None:
    make(tmp_path / "x.duckdb")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".x.duckdb.lock", "x.duckdb"]


@pytest.mark.parametrize(
    ("text", "holder"),
    [
        ("Could not set lock on file: Conflicting lock is held in /bin/python3 (PID 12). See", "process 12 (python3)"),
        ("The process cannot access the file because it is being used by another process.", "another process"),
        ("Could not set lock on file: Resource temporarily unavailable", "another process"),
    ],
    ids=["POSIX", "Windows", "no holder"],
)
def test_who_holds_a_lock(text: str, holder: str) -> None:
    message = str(explained(duckdb.IOException(f"IO Error: {text}"), Path("x")))
    assert message.startswith(f"x is held by {holder}: close it there and sync again")


def test_threads_open_and_close_the_file_as_they_please(tmp_path: Path) -> None:
    # Red without the lock around opening and closing: the checks of one run are threads.
    pauses = random.Random(7)
    warehouse = DuckDBFile(tmp_path / "test.duckdb")
    with warehouse.transaction() as connection:
        connection.execute("create table numbers as select range as number from range(100000)")

    def use(thread: int) -> int:
        for turn in range(150):
            if thread == 0 and turn % 5 == 0:
                with warehouse.transaction() as connection:
                    connection.execute("update numbers set number = number + 1 where number % 7 = 0")
            with warehouse.reading() as connection:
                assert count(connection, "select count(*) from numbers") == 100_000
            time.sleep(pauses.random() * 0.003)  # so that now and then nobody has it open
        return 1

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(use, range(4))) == 4


_PUBLISH = """
import sys
from pathlib import Path
from mixpanel_assets.storage.duckdb_errors import explained
from mixpanel_assets.storage.duckdb_file import DuckDBFile
with DuckDBFile(Path(sys.argv[1])).transaction() as connection:
    connection.execute("update t set n = n + 1")
    print("publishing", flush=True)
    sys.stdin.readline()
"""


class TestOurOwnProcesses:
    """A sync of ours is waited for as long as it lives, whatever the patience with others."""

    @pytest.fixture(autouse=True)
    def impatient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(database, "LOCK_WAIT_SECONDS", 0.0)
        monkeypatch.setattr(database, "PREFLIGHT_WAIT_SECONDS", 0.0)
        monkeypatch.setattr(process_turns, "_TURN_POLL_SECONDS", 0.1)

    @pytest.fixture
    def other(self, tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
        command = [sys.executable, "-c", _PUBLISH, str(make(tmp_path / "x.duckdb"))]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "publishing\n"
            yield process
            process.kill()

    @pytest.mark.parametrize(("ends", "least"), [("well", 1), ("killed", 0)])
    @pytest.mark.parametrize("does", ["check", "write", "read"])
    def test_are_waited_for_and_it_is_said_once(
        self, tmp_path: Path, other: "subprocess.Popen[str]", does: str, ends: str, least: int
    ) -> None:
        """Red without `_turn_of_process`: "held by process N: close it there and sync again"."""
        said: list[str] = []
        path = tmp_path / "x.duckdb"
        warehouse = DuckDBFile(tmp_path / "." / "x.duckdb", said.append)

        def do() -> int:
            if does == "check":
                warehouse.check_ready()
            if does == "write":
                with warehouse.transaction() as connection:
                    return count(connection, "select min(n) from t")
            with warehouse.reading() as connection:
                return count(connection, "select min(n) from t")

        with ThreadPoolExecutor(3) as threads:
            done = [threads.submit(do) for _ in range(3)]
            time.sleep(1)
            assert not any(each.done() for each in done)
            if ends == "killed":
                other.kill()
            else:
                assert other.stdin is not None
                other.stdin.write("go\n")
                other.stdin.flush()
            assert [each.result(timeout=30) for each in done] == [least] * 3
        assert said == [f"another sync of ours works with {path}; waiting for it"]

    def test_a_wish_to_stop_ends_the_wait(self, tmp_path: Path, other: "subprocess.Popen[str]") -> None:
        """Red when only the lock ends it."""
        stop = threading.Event()
        stop.set()
        with stoppable(stop), pytest.raises(Cancelled, match="another sync worked with"):
            DuckDBFile(tmp_path / "x.duckdb").check_ready()

    @pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
    def test_a_folder_that_takes_no_lock_file_is_no_obstacle(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Red when what the lock file costs is an error of the sync."""

        def refused(*_: object, **__: object) -> None:
            raise PermissionError(13, "Permission denied")

        monkeypatch.setattr("filelock.FileLock.acquire", refused)
        make(tmp_path / "y.duckdb")
