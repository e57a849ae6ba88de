"""Processes that are killed, stopped, starved of disk, or in each other's way: real `dagster asset materialize` runs.

After each, the table is the old one or the new one, and the next run needs no manual step.
"""

import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from mixpanel_assets.sandbox import Fault, Limits, Population, Sandbox
from mixpanel_assets_tests.pipeline import Pipeline

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and resource limits"),
    # Dagster's own use of its own deprecated name.
    pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run is deprecated"),
]

PATIENCE_SECONDS = 60  # only ever waited for when something is broken
MATERIALIZE = (
    *(sys.executable, "-m", "dagster", "asset", "materialize", "--select", "mixpanel/profiles"),
    *("-m", "mixpanel_assets.definitions"),
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    return home


@pytest.fixture
def instance(home: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield instance


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(Population(240), page_size=20) as sandbox:
        yield sandbox
    assert sandbox.errors == []


@pytest.fixture
def pipeline(instance: dg.DagsterInstance, sandbox: Sandbox, home: Path, monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    return Pipeline.start(instance, sandbox, home, monkeypatch)


def start(output: Path, before: Callable[[], None] | None = None) -> subprocess.Popen[bytes]:
    """A sync in a process of its own, which writes all that it says to `output`."""
    with output.open("wb") as file:
        return subprocess.Popen(MATERIALIZE, stdout=file, stderr=subprocess.STDOUT, preexec_fn=before)


def wait_until(happened: Callable[[], bool], process: subprocess.Popen[bytes], output: Path) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert time.monotonic() < deadline, output.read_text()
        assert process.poll() is None, output.read_text()
        time.sleep(0.005)


def says(output: Path, words: str) -> bool:
    return words in output.read_text()


def change(pipeline: Pipeline, number: int) -> None:
    """Everybody differs from before, one is new and one gone, so that a mixed table is neither old nor new."""
    people = pipeline.sandbox.population
    for key in list(pipeline.truth())[::20]:
        people.replace(key, {"round": number})
    people.add(f"newcomer {number}", {"round": number})
    people.remove(list(pipeline.truth())[1])


class TestKill:
    def test_leaves_the_old_table_or_the_new_one(self, pipeline: Pipeline, tmp_path: Path) -> None:
        """Killed amid the pages, at the end of them, and around the publish; nobody cleans up in between."""
        assert pipeline.sync().success
        old = pipeline.table()
        output, dice = tmp_path / "output.txt", random.Random(5)
        moments = [("collect - STEP_START", delay) for delay in (0.02, 0.08)] + [("fetch_page[p00006]", 0.0)]
        for number, (words, delay) in enumerate(moments):
            change(pipeline, number)
            process = start(output)
            wait_until(partial(says, output, words), process, output)
            time.sleep(delay + dice.uniform(0, 0.03))
            process.kill()
            process.wait()
            table = pipeline.table()
            assert table in (old, pipeline.truth()), f"neither old nor new when killed {delay} s after {words}"
            old = table
        process = start(output)
        assert process.wait(PATIENCE_SECONDS) == 0, output.read_text()
        assert pipeline.table() == pipeline.truth()

    def test_reexecution_from_failure_is_never_green_with_pages_missing(
        self, pipeline: Pipeline, tmp_path: Path
    ) -> None:
        """Dagster runs again only the pages that had begun, and forgets the others.

        Red without owed_pages in check_pages: pages are missing, and listed.
        """
        output = tmp_path / "output.txt"
        pipeline.sandbox.limits = Limits(enforce=False)  # The dead run's requests still hang there.
        pipeline.sandbox.faults = [Fault("engage", "delay", page, times=1, seconds=30) for page in range(3, 12)]
        process = start(output)
        wait_until(lambda: len(pipeline.sandbox.journal.starts("engage")) == 8, process, output)
        time.sleep(0.5)  # The news of the last 0.1 s is not on the disk yet; the plan would be made again.
        process.kill()
        process.wait()
        pipeline.sandbox.faults = []
        (dead,) = pipeline.instance.get_runs()
        pipeline.instance.report_run_failed(dead)
        outcome = pipeline.reexecute(dead.run_id)
        assert outcome.success, outcome.words
        assert outcome.failed_pages == []
        assert pipeline.table() == pipeline.truth()

    def test_what_killed_runs_left_goes_with_the_next_run(self, pipeline: Pipeline, tmp_path: Path) -> None:
        """Staged pages are personal data. Red without `delete_leftovers`, and when only finished files count."""
        for number in range(3):
            output = tmp_path / f"{number}.txt"
            process = start(output)
            wait_until(partial(says, output, f"fetch_page[p0000{number + 4}]"), process, output)
            process.kill()
            process.wait()
        staging = pipeline.home / "staging"
        assert len(list(staging.glob("profiles/*/*.jsonl"))) > 3
        killed = {run.run_id for run in pipeline.instance.get_runs()}
        outcome = pipeline.sync()
        assert outcome.success, outcome.words
        assert [file for file in staging.rglob("*") if file.is_file() and outcome.run_id not in file.parts] == []
        # Executing one of them again is a clear no, not a stack trace about a file.
        again = pipeline.reexecute(sorted(killed)[0])
        assert "materialize anew" in again.words
        assert pipeline.table() == pipeline.truth()

    def test_a_database_is_never_half_made(self, tmp_path: Path) -> None:
        # Red without create_whole: DuckDB makes the file in place, and one cut short "is not a DuckDB database".
        script = (
            "import os, sys, duckdb; from pathlib import Path\n"
            "from mixpanel_assets.storage.duckdb_file import DuckDBFile\n"
            "connect = duckdb.connect\n"
            "def cut(path, **options):\n"
            "    connection = connect(path, **options)\n"
            "    connection.close(); Path(path).write_bytes(b''); os._exit(9)\n"
            "duckdb.connect = cut\n"
            "with DuckDBFile(Path(sys.argv[1])).transaction(): pass\n"
        )
        path = tmp_path / "new.duckdb"
        assert subprocess.run([sys.executable, "-c", script, str(path)], check=False).returncode == 9
        assert not path.exists()


class TestStop:
    def test_sigterm_ends_a_sync_within_seconds(self, pipeline: Pipeline, tmp_path: Path) -> None:
        """Waits for a retry are cut short, requests in flight are let go."""
        assert pipeline.sync().success
        old = pipeline.table()
        change(pipeline, 1)
        output = tmp_path / "output.txt"
        pipeline.sandbox.faults = [Fault("engage", "limited:shedding", page=2, times=None, retry_after=100)]
        process = start(output)
        wait_until(lambda: "again in 10" in output.read_text(), process, output)
        process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        assert process.wait(PATIENCE_SECONDS) != 0
        assert time.monotonic() - began < 9  # measured 0.6 s; without the stop in the retry's wait: 10 s and more
        assert "The run was cancelled" in output.read_text()
        assert pipeline.instance.get_runs(limit=1)[0].status == dg.DagsterRunStatus.CANCELED
        assert pipeline.table() == old
        pipeline.sandbox.faults = []
        assert pipeline.sync().success
        assert pipeline.table() == pipeline.truth()


def limit_file_size(megabytes: float) -> Callable[[], None]:
    """No file of the process may grow beyond this: what a full disk does, without filling one."""

    def limit() -> None:
        import resource  # POSIX only

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(megabytes * 1e6), int(megabytes * 1e6)))

    return limit


class TestFullDisk:
    @pytest.mark.parametrize(
        ("page_size", "says"),
        [(2000, "cannot stage in"), (400, "as it was: free space, then sync again")],
        ids=["while staging", "while publishing"],
    )
    def test_keeps_the_old_table(
        self, home: Path, instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
        page_size: int, says: str,
    ) -> None:  # fmt: skip
        output = tmp_path / "output.txt"
        with Sandbox(Population(40), page_size=page_size) as sandbox:
            pipeline = Pipeline.start(instance, sandbox, home, monkeypatch)
            assert pipeline.sync().success
            old = pipeline.table()
            for number in range(2000):
                sandbox.population.add(f"new {number}", {"text": random.Random(number).randbytes(400).hex()})
            process = start(output, limit_file_size(1.0))
            assert process.wait(PATIENCE_SECONDS) != 0
            assert says in output.read_text(), output.read_text()[-3000:]
            assert pipeline.table() == old
            assert pipeline.sync().success
            assert pipeline.table() == pipeline.truth()


class Holder:
    """Another process that opens a DuckDB file when told to, as a dashboard does, and closes it when told to."""

    CODE = (
        "import duckdb, sys\n"
        "for command in sys.stdin:\n"
        "    connection = duckdb.connect(sys.argv[1], read_only=True) if command == 'open\\n' else connection.close()\n"
        "    print(command, end='', flush=True)\n"
    )

    def __init__(self, path: Path) -> None:
        command = [sys.executable, "-c", self.CODE, str(path)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self._process.pid

    def tell(self, command: str) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        assert self._process.stdout.readline() == command + "\n"

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture
def holder(pipeline: Pipeline) -> Iterator[Holder]:
    """Of a database that holds a first sync."""
    assert pipeline.sync().success
    holder = Holder(pipeline.database)
    yield holder
    holder.end()


class TestLock:
    def test_a_short_lock_is_waited_out_and_its_holder_named(self, pipeline: Pipeline, holder: Holder) -> None:
        """The reader comes when page 1 has been asked for, and leaves when the sync says that it waits."""
        change(pipeline, 1)
        pipeline.sandbox.clear()
        pipeline.sandbox.faults = [Fault("engage", "delay", page=1, seconds=1)]
        held_by = f"is held by process {holder.pid}"

        def read() -> None:
            deadline = time.monotonic() + PATIENCE_SECONDS
            while len(pipeline.sandbox.journal.starts("engage")) < 2 and time.monotonic() < deadline:
                time.sleep(0.01)
            holder.tell("open")
            while time.monotonic() < deadline:
                newest = pipeline.instance.get_runs(limit=1)[0]
                if any(held_by in entry.message for entry in pipeline.instance.all_logs(newest.run_id)):
                    break
                time.sleep(0.05)
            holder.tell("close")

        reader = threading.Thread(target=read)
        reader.start()
        outcome = pipeline.sync()
        reader.join()
        assert outcome.success, outcome.words
        assert held_by in outcome.words
        assert pipeline.table() == pipeline.truth()

    def test_a_long_lock_ends_the_sync_before_its_first_request(
        self, pipeline: Pipeline, holder: Holder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Red without check_ready in the metadata op: 13 requests, then a minute of waiting.
        monkeypatch.setattr("mixpanel_assets.storage.duckdb_file.PREFLIGHT_WAIT_SECONDS", 0.3)
        monkeypatch.setattr("mixpanel_assets.storage.duckdb_file.LOCK_WAIT_SECONDS", 1)
        pipeline.sandbox.clear()
        old = pipeline.table()
        holder.tell("open")
        outcome = pipeline.sync()
        assert not outcome.success
        assert f"is held by process {holder.pid} (python" in outcome.words
        assert "close it there and sync again; the table is as it was" in outcome.words
        assert pipeline.sandbox.journal.requests == []
        holder.tell("close")
        assert pipeline.table() == old


def test_two_runs_at_once_keep_to_five_requests_and_both_end_right(pipeline: Pipeline, tmp_path: Path) -> None:
    # Red without pool=ENGAGE_POOL on fetch_page: 10 in flight, and answers of 429.
    pipeline.sandbox.latency = 0.25
    outputs = [tmp_path / f"output{number}.txt" for number in range(2)]
    processes = [start(output) for output in outputs]
    for process, output in zip(processes, outputs, strict=True):
        # On a busy machine the one that began first may end last: then there is nothing left for it to store.
        superseded = (
            "one that began later has stored all" in output.read_text() if process.wait(PATIENCE_SECONDS) else ""
        )
        assert process.returncode == 0 or superseded, output.read_text()
    assert 0 in [process.returncode for process in processes]
    journal: Any = pipeline.sandbox.journal
    assert journal.max_in_flight("engage") <= 5
    assert journal.count(status=200) == len(journal.requests) == 24
    assert pipeline.table() == pipeline.truth()
