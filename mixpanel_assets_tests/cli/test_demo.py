"""`mp demo` and `mp sandbox`: a first look without a Mixpanel project."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest

from mixpanel_assets.sandbox import Sandbox
from mixpanel_assets_tests.cli.mp import Mp

# Dagster's own code calls it while it sets up a resource.
pytestmark = [pytest.mark.process, pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run is deprecated")]

on_posix = pytest.mark.skipif(os.name == "nt", reason="a POSIX shell, POSIX signals")


def test_the_demo_stores_in_a_home_of_its_own_and_may_be_run_again(
    mp: Mp, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red when the demo leaves MP_DUCKDB_PATH or MP_QUERY_URL as they are: real data would be replaced."""
    real = tmp_path / "real.duckdb"
    monkeypatch.setenv("MP_DUCKDB_PATH", str(real))
    assert mp("demo", "--profiles", "3000", "--latency", "0") == 0
    database = tmp_path / "home" / "demo" / "mixpanel_data.duckdb"
    assert "Stored 3,000 profiles from 3 pages" in mp.out
    assert str(database) in mp.out
    assert f"DAGSTER_HOME={database.parent.parent} " in mp.out.splitlines()[-1], "the line that opens the UI"
    assert mp.out.splitlines()[-1].endswith(" demo --ui")
    assert not real.exists()
    assert sandbox.journal.requests == []
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    assert mp("demo", "--profiles", "1000", "--latency", "0") == 0, "fewer profiles than last time are no mishap here"
    with duckdb.connect(str(database)) as connection:
        assert connection.execute("select count(*) from mixpanel.profiles").fetchall() == [(1000,)]


@on_posix
def test_the_demos_query_line_works(mp: Mp, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Red when the table's name is ambiguous, or the path is not quoted: this home has a space and a quote."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "it's my home"))
    assert mp("demo", "--profiles", "10", "--latency", "0") == 0
    [line] = [line for line in mp.out.splitlines() if "import sys, duckdb" in line]
    shown = subprocess.run(line, shell=True, capture_output=True, text=True, check=True).stdout
    assert "distinct_id" in shown


@on_posix
def test_the_sandbox_prints_what_to_export_and_ends_on_ctrl_c(sandbox: Sandbox) -> None:
    """Red when the lines stay in a buffer, and when Ctrl-C is an error."""
    command = [sys.executable, "-m", "mixpanel_assets", "sandbox", "--profiles", "10"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        lines = [process.stdout.readline() for _ in range(len(sandbox.environment))]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0
    assert "Traceback" not in errors
    exported = {match[1] for match in (re.fullmatch(r"export (MP_\w+)='(.*)'\n", line) for line in lines) if match}
    assert exported == set(sandbox.environment)
