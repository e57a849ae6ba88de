"""DAGSTER_HOME as new machines, old versions, full disks and people's editors leave it: opened, mended, or named in one
line."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mixpanel_assets.cli.main import run
from mixpanel_assets.sandbox import Population, Sandbox

pytestmark = pytest.mark.process

MP = (sys.executable, "-m", "mixpanel_assets")
DAGSTER = (sys.executable, "-m", "dagster")
AT_ONCE = 4
# What Dagster calls a database with tables and without a version.
UNKNOWN_AGE = "5771160a95ad"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    with Sandbox(Population(profiles=5, events_per_day=5)) as sandbox:
        for name, value in sandbox.environment.items():
            monkeypatch.setenv(name, value)
        yield sandbox


def by_mp(day: str) -> tuple[str, ...]:
    return (*MP, "fetch", "events", "--from", day, "--to", day, "--no-progress")


def by_dagster(day: str) -> tuple[str, ...]:
    materialize = ("asset", "materialize", "-m", "mixpanel_assets.definitions", "--select", "mixpanel/events")
    return (*DAGSTER, *materialize, "--partition-range", f"{day}...{day}")


@pytest.mark.parametrize("command", [by_mp, by_dagster])
def test_the_first_processes_of_a_new_home_wait_for_each_other(
    home: Path, sandbox: Sandbox, command: Callable[[str], tuple[str, ...]]
) -> None:
    """Seen red without `_alone` in instance_storage.py: 7 of 8 rounds with `mp`; with Dagster's command 3 of 3."""
    if command is by_dagster:
        home.mkdir()
        shutil.copy(Path(__file__).parent.parent / "dagster_home" / "dagster.yaml", home)
    days = [f"2026-01-0{number}" for number in range(1, AT_ONCE + 1)]
    started = [subprocess.Popen(command(day), stdout=-1, stderr=-1, text=True) for day in days]
    ended = [(process.communicate(timeout=120), process.returncode) for process in started]
    assert [code for _, code in ended] == [0] * AT_ONCE, ended
    assert run(["status"]) == 0


def test_a_home_with_two_versions_is_mended(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """As 0.1.0 left it in 3 of 8 tries. Red without mend_versions: "more than one head present"."""
    assert run(["status"]) == 0
    for name in ("history/runs.db", "history/runs/index.db", "schedules/schedules.db"):
        with closing(sqlite3.connect(home / name)) as connection, connection:
            connection.execute("insert into alembic_version values (?)", [UNKNOWN_AGE])
    assert run(["status"]) == 0
    with closing(sqlite3.connect(home / "history/runs.db")) as connection:
        [(version,)] = connection.execute("select version_num from alembic_version").fetchall()
    assert version != UNKNOWN_AGE
    assert "head" not in capfd.readouterr().err


def test_a_home_that_mp_makes_is_its_owners(home: Path) -> None:
    """Dagster's history holds previews of profiles. Red when mkdir is given no mode."""
    assert run(["status"]) == 0
    assert os.name == "nt" or home.stat().st_mode & 0o777 == 0o700


def write(name: str, content: bytes) -> Callable[[Path], None]:
    def spoil(home: Path) -> None:
        for beside in home.glob(f"{name}-*"):
            beside.unlink()
        (home / name).write_bytes(content)

    return spoil


def cut(home: Path) -> None:
    database = home / "history" / "runs.db"
    write("history/runs.db", database.read_bytes()[:20_000])(home)


def without_runs(home: Path) -> None:
    with closing(sqlite3.connect(home / "history" / "runs.db")) as connection:
        connection.execute("drop table runs")


def settings_in_a_folder(home: Path) -> None:
    (home / "dagster.yaml").unlink()
    (home / "dagster.yaml").mkdir()


DAMAGED, SETTINGS = "is damaged: move its folders", "dagster.yaml cannot be read: "
CASES = {
    "history is cut": (cut, DAMAGED),
    "history is no database": (write("history/runs.db", b"once upon a time, there was" * 9), DAMAGED),
    "index is no database": (write("history/runs/index.db", b"once upon a time, there was" * 9), DAMAGED),
    "a table lacks": (without_runs, DAMAGED),
    "no YAML": (write("dagster.yaml", b"telemetry: ["), SETTINGS),
    "no text": (write("dagster.yaml", b"\xff\xfe\x00"), SETTINGS),
    "an unknown key": (write("dagster.yaml", b"telemetri: {enabled: false}"), SETTINGS),
    "a bad value": (write("dagster.yaml", b"telemetry: {enabled: perhaps}"), SETTINGS),
    "a list": (write("dagster.yaml", b"- telemetry"), SETTINGS),
    "a module that is not there": (
        write("dagster.yaml", b"storage: {custom: {module: nowhere, class: Nothing}}"),
        "nowhere",
    ),
    "settings are a folder": (settings_in_a_folder, SETTINGS),
}
COMMANDS = {
    "status": ["status"],
    "plan": ["plan", "profiles"],
    "fetch": ["fetch", "profiles"],
    "retry": ["retry", "events"],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home that was opened once."""
    home = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("DAGSTER_HOME", str(home))
        assert run(["status"]) == 0
    return home


EVERYWHERE = ("history is cut", "no YAML")
EACH = [*((case, "status") for case in CASES), *((case, command) for case in EVERYWHERE for command in COMMANDS)]


@pytest.mark.parametrize(("case", "command"), dict.fromkeys(EACH))
def test_what_cannot_be_opened_is_one_line(
    made: Path, home: Path, sandbox: Sandbox, capfd: pytest.CaptureFixture[str], case: str, command: str
) -> None:
    """Red without storage_faults.py: a stack trace of 40 to 90 lines."""
    spoil, says = CASES[case]
    shutil.copytree(made, home)
    spoil(home)
    capfd.readouterr()
    code = run(COMMANDS[command])
    out, err = capfd.readouterr()
    assert (code, out) == (1, "")
    assert err.count("\n") == 1
    assert err.startswith("Error: ")
    assert says in err
    assert str(home) in err
    assert len(err) < 700
    assert sandbox.journal.requests == []


@pytest.mark.parametrize("command", ["status", "fetch"])
def test_a_lock_that_stays_is_one_line(
    made: Path, home: Path, sandbox: Sandbox, capfd: pytest.CaptureFixture[str], command: str
) -> None:
    """Another program holds Dagster's history, such as a backup. Red without `named`."""
    shutil.copytree(made, home)
    with closing(sqlite3.connect(home / "history" / "runs.db")) as connection:
        connection.execute("pragma locking_mode = exclusive")
        connection.execute("begin exclusive")
        capfd.readouterr()
        code = run(COMMANDS[command])
    out, err = capfd.readouterr()
    assert (code, out) == (1, "")
    assert err == f"Error: Dagster's history in {home} is locked by another process: end that, or wait, and try again\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("command", [["status"], ["status", "--format", "table"], ["--help"]])
def test_a_full_disk_under_stdout_is_one_line(home: Path, command: list[str]) -> None:
    """Red without `show`'s translation: a stack trace, and another when the interpreter flushes."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*MP, *command], stdout=full, stderr=-1, text=True, check=False)
    assert done.returncode == 1
    words = "No space left on device" if "--help" in command else "cannot write to stdout (No space left on device)"
    assert done.stderr == f"Error: {words}\n"


@pytest.mark.skipif(os.name == "nt", reason="a POSIX shell")
@pytest.mark.parametrize(
    ("redirection", "code"),
    [(">&-", 0), ("2>&-", 0), (">&- 2>&-", 0), ("2>/dev/full", 0), ("| head -0", 0), ("2>&1 | head -0", 0)],
)
def test_a_stream_that_nobody_reads_costs_nothing(
    home: Path, sandbox: Sandbox, capfd: pytest.CaptureFixture[str], redirection: str, code: int
) -> None:
    """Red without the empty streams of `main`: the DuckDB file got the descriptor of a closed stdout; and without
    `say`'s: a sync ended where its first line could not be written."""
    line = f"set -o pipefail; {' '.join(MP)} fetch profiles {redirection}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert run(["status"]) == 0
    assert json.loads(capfd.readouterr().out)["profiles"]["rows"] == 5
