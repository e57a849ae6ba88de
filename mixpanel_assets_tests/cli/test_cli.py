"""`mp` as scripts and agents use it: exit codes, JSON on stdout, everything else on stderr.

Each test names the guard that it was seen red without. What only a terminal shows is test_terminal.py's.
"""

import datetime
import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pytest

from mixpanel_assets.cli.day_options import day_range
from mixpanel_assets.cli.fetch import names
from mixpanel_assets.cli.main import app, run
from mixpanel_assets.client.quota import LEDGER_FILE, Account, Ledger
from mixpanel_assets.client.rate_limits import RateLimits
from mixpanel_assets.errors import ConfigurationError
from mixpanel_assets.sandbox import Fault, Population, Sandbox

# Dagster's own code calls it while it sets up a resource.
pytestmark = [pytest.mark.process, pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run is deprecated")]

SECRET = "sandbox-secret-4711"

on_posix = pytest.mark.skipif(os.name == "nt", reason="a POSIX shell, POSIX signals")


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    population = Population(profiles=45, seed=2, events_per_day=10)
    with Sandbox(population, page_size=10, secret=SECRET) as sandbox:
        for name, value in sandbox.environment.items():
            monkeypatch.setenv(name, value)
        for name in ("MP_DUCKDB_PATH", "MP_EVENTS_START_DATE", "MP_TIMEZONE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
        yield sandbox


class Mp:
    """Runs `mp` in this process and keeps what it printed."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd
        self.out = self.err = ""

    def __call__(self, *arguments: str) -> int:
        self._capfd.readouterr()
        code = run(list(arguments))
        self.out, self.err = self._capfd.readouterr()
        return code

    @property
    def result(self) -> dict[str, Any]:
        """stdout, which is JSON and nothing else."""
        result: dict[str, Any] = json.loads(self.out)
        return result


@pytest.fixture
def mp(capfd: pytest.CaptureFixture[str]) -> Mp:
    return Mp(capfd)


def test_a_whole_sync_is_json_on_stdout_progress_on_stderr_and_zero(mp: Mp, sandbox: Sandbox) -> None:
    """Red when progress goes to stdout."""
    assert mp("fetch", "profiles", "--parallel") == 0
    assert set(mp.result) == {
        *("database", "table", "total_rows", "successful_pages", "failed_pages", "failed_page_indices"),
        *("duration_seconds", "fetched_at", "has_failures"),
    }
    assert (mp.result["total_rows"], mp.result["failed_page_indices"]) == (45, [])
    assert "profiles: 5 of 5 pages, 45 rows" in mp.err
    assert mp("fetch", "profiles") == 0
    assert (mp.result["rows"], mp.result["type"], mp.result["has_failures"]) == (45, "profiles", False)
    assert SECRET not in mp.out + mp.err


def test_no_progress_leaves_stderr_empty(mp: Mp, sandbox: Sandbox) -> None:
    """Red when `wanted` is not handed on; Dagster's own lines would show too if they were not silenced."""
    assert mp("fetch", "profiles", "-p", "--no-progress") == 0
    assert mp.err == ""


def test_verbose_shows_dagsters_lines(mp: Mp, sandbox: Sandbox) -> None:
    """Red when the log level is not handed on."""
    assert mp("fetch", "profiles", "-v") == 0
    assert "page 3: 10 profiles" in mp.err
    assert mp.result["rows"] == 45


def test_a_failed_page_is_one_and_a_warning_and_retry_mends_it(mp: Mp, sandbox: Sandbox) -> None:
    """Red without the exit code in `_sync`."""
    sandbox.faults.append(Fault("engage", "status:403", page=2, times=1))
    assert mp("fetch", "profiles", "-p") == 1
    assert (mp.result["failed_page_indices"], mp.result["has_failures"]) == ([2], True)
    assert "Warning: 1 of 5 pages failed: 2. Fetch them with: mp retry profiles" in mp.err
    assert "missing from this sync" not in mp.err, "said once is enough"
    assert mp("retry", "profiles") == 0
    assert mp.result["failed_page_indices"] == []


def test_a_failed_page_is_two_lines_on_stderr_and_nothing_at_the_end(sandbox: Sandbox) -> None:
    """Red without `_give_back_for_connections`: DuckDB's bindings print forty lines when the process ends."""
    sandbox.faults.append(Fault("engage", "status:403", page=2, times=1))
    command = [sys.executable, "-m", "mixpanel_assets", "fetch", "profiles", "-p", "--no-progress"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert [line.split(":")[0] for line in done.stderr.splitlines()] == ["failed", "Warning"]


def test_a_retry_with_nothing_owed_is_no_failure_and_no_run(mp: Mp, sandbox: Sandbox) -> None:
    """Red when a run is started for it: it fails, and the asset shows as failed."""
    assert mp("fetch", "profiles", "-p") == 0
    assert mp("fetch", "events", "--from", "2026-01-01", "--to", "2026-01-01") == 0
    assert mp("status") == 0
    runs = [mp.result[units]["last_run"] for units in ("profiles", "events")]
    for units in ("profiles", "events"):
        assert mp("retry", units) == 0
        assert (mp.out, mp.err.count("\n"), mp.err[:23]) == ("", 1, "Nothing to fetch again:")
    assert mp("status") == 0
    assert [mp.result[units]["last_run"] for units in ("profiles", "events")] == runs


@on_posix
def test_a_reader_that_goes_away_is_no_failure(sandbox: Sandbox) -> None:
    """Red without the BrokenPipeError in `show`: exit code 1, for a sync that stored everything."""
    command = f"{sys.executable} -m mixpanel_assets fetch profiles -p --no-progress | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_failed_days_are_one_and_a_warning_and_retry_mends_them(mp: Mp, sandbox: Sandbox) -> None:
    """Red without the exit code in `_sync`."""
    sandbox.faults.append(Fault("export", "status:403", from_date="2026-01-02", times=1))
    days = ("--from", "2026-01-01", "--to", "2026-01-03", "--chunk-days", "1")
    assert mp("fetch", "events", *days, "-p") == 1
    assert (mp.result["failed_date_ranges"], mp.result["has_failures"]) == ([["2026-01-02", "2026-01-02"]], True)
    assert "Warning: 1 of 3 chunks failed: 2026-01-02 to 2026-01-02. Fetch them with: mp retry events" in mp.err
    assert mp("retry", "events") == 0
    assert (mp.result["total_rows"], mp.result["failed_date_ranges"]) == (10, [])
    assert mp("fetch", "events", *days) == 0
    assert (mp.result["rows"], mp.result["date_range"]) == (30, ["2026-01-01", "2026-01-03"])


def test_a_total_failure_is_one_and_no_result(mp: Mp, sandbox: Sandbox) -> None:
    """Red when an error of ours is taken for success."""
    sandbox.faults.append(Fault("engage", "status:403", times=None))
    assert mp("fetch", "profiles", "-p") == 1
    assert mp.out == ""
    assert mp.err.splitlines()[-1].startswith("Error: page 0: Mixpanel answered 403")


@pytest.mark.parametrize(
    "command", [("profiles", "-p"), ("events", "-p", "--from", "2026-01-01", "--to", "2026-01-09")]
)
def test_refused_credentials_are_two(
    mp: Mp, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    """Red when the kind of a step's error is lost."""
    monkeypatch.setenv("MP_SECRET", "hunter2-is-wrong")
    assert mp("fetch", *command) == 2
    assert "Mixpanel refused the credentials (401)" in mp.err.splitlines()[-1]
    assert "hunter2" not in mp.err


def test_missing_credentials_are_two_and_said_without_starting_dagster(
    mp: Mp, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Red without `check_settings`: a run would be started for it."""
    monkeypatch.delenv("MP_USERNAME")
    assert mp("fetch", "profiles") == 2
    assert mp.err == (
        "Error: MP_USERNAME not set: export the service account's MP_USERNAME and MP_SECRET, and MP_PROJECT_ID; "
        "without an account, try: mp demo\n"
    )
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("fetch", "profiles", "--bogus"), "No such option"),
        (("fetch", "profiles", "--page-size", "many"), "valid integer"),
        (("fetch", "profiles", "--page-size", "0"), "page_size must be"),
        (("fetch", "profiles", "-p", "--workers", "0"), "--workers 0 cannot fetch anything"),
        (("fetch", "profiles", "--output-properties", "[1]"), "not a JSON list of names"),
        (("fetch", "profiles", "--include-all-users"), "cohort"),
        (("fetch", "events", "--from", "2026-01-01"), "--to"),
        (("fetch", "events", "--from", "2026-01-02", "--to", "2026-01-01"), "2026-01-02"),
        (("fetch", "events", "--from", "2026-01-01", "--to", "2999-01-01"), "is in the future"),
        (("fetch", "events", "--from", "2026-01-01", "--to", "2026-01-01", "--chunk-days", "101"), "--chunk-days"),
        (("fetch", "funnels"), "funnels"),
        (("fetch", "events"), "which days? Give --from and --to, or --last 7d"),
        (("plan", "events", "--last", "7d", "--to", "today"), "--last stands for --from and --to: give it alone"),
        (("fetch", "events", "--last", "0d"), "--last '0d' is not a number of days: write it as 7d"),
        (("fetch", "events", "--from", "2026-01-01"), "--from 2026-01-01 needs --to: a date, yesterday or today"),
        (("sandbox", "--fault", '{"endpoint": "engage", "do": "nothing"}'), "there are: auth-error, bad-chunk, "),
        (("sandbox", "--fault", "drop"), '--fault: give JSON such as {"endpoint": "engage", "do": "status:503"}'),
        (("sandbox", "--fault", '{"do": "drop"}'), "a fault needs endpoint; endpoint is one of engage, "),
    ],
)
def test_invalid_arguments_are_three_and_nothing_is_sent(
    mp: Mp, sandbox: Sandbox, arguments: tuple[str, ...], words: str
) -> None:
    """Red when a wrong command line keeps Typer's own code, which is 2."""
    assert mp(*arguments) == 3
    assert mp.out == ""
    assert words in mp.err
    assert "Traceback" not in mp.err
    assert sandbox.journal.requests == []


def test_an_unknown_region_is_three(mp: Mp, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Red when the region is not looked at."""
    monkeypatch.delenv("MP_QUERY_URL")
    monkeypatch.setenv("MP_REGION", "mars")
    assert mp("fetch", "profiles") == 3
    assert "MP_REGION 'mars' is unknown: use one of us, eu, in" in mp.err


def test_workers_without_parallel_are_told_to_do_nothing_and_too_many_are_capped(mp: Mp, sandbox: Sandbox) -> None:
    """Red without the line in `check_settings`, and without the cap."""
    assert mp("fetch", "profiles", "--workers", "3") == 0
    assert "Warning: --workers does nothing without --parallel" in mp.err
    with pytest.warns(UserWarning, match="9 workers wished for"):
        assert mp("fetch", "profiles", "-p", "--workers", "9") == 0


def test_filters_reach_mixpanel(mp: Mp, sandbox: Sandbox) -> None:
    """Red when an option is not put into the config."""
    where = 'properties["plan"] == "pro"'
    options = (
        "--where",
        where,
        "--output-properties",
        "plan",
        "--output-properties",
        "$email",
        "--page-size",
        "7",
        "--max-removed-fraction",
        "1",
    )
    assert mp("fetch", "profiles", *options) == 0
    asked = sandbox.journal.requests[0].params
    assert asked["where"] == where
    assert json.loads(asked["output_properties"]) == ["plan", "$email"]
    assert asked["page_size"] == "7"
    sandbox.journal.clear()
    assert mp("fetch", "profiles", "-c", "1001", "--max-removed-fraction", "1") == 0
    assert json.loads(sandbox.journal.requests[0].params["filter_by_cohort"]) == {"id": 1001}
    sandbox.journal.clear()
    assert mp("fetch", "events", "--from", "2026-01-01", "--to", "2026-01-01", "-e", "Signup", "-e", "A,B") == 0
    assert json.loads(sandbox.journal.requests[0].params["event"]) == ["Signup", "A,B"]


def test_a_name_that_brought_nothing_is_told(mp: Mp, sandbox: Sandbox) -> None:
    """Red without `_absent_names` and `_absent_properties`: nothing comes, and it looks like a success."""
    days = ("fetch", "events", "--from", "2026-01-01", "--to", "2026-01-04", "--chunk-days", "1", "--no-progress")
    assert mp(*days, "-e", "Viewed Page, Home", "-e", "Search", "-e", "search\x1b[31m") == 0
    told = 'no event that came is named "Viewed Page, Home" or "search\\u001b[31m": check events'
    assert (mp.err.count("\n"), mp.err.count(told)) == (1, 1)
    assert mp(*days, "-e", "Search") == 0
    assert mp.err == ""
    assert mp(*days, "-e", "Nope") == 0
    assert (mp.result["rows"], mp.err.count('is named "Nope": check')) == (0, 1)
    profiles = ("fetch", "profiles", "--no-progress", "-p", "--max-removed-fraction", "1")
    names = '["plan", "email", "$email", "a.\\"b\\"", "$distinct_id"]'
    assert mp(*profiles, "--output-properties", names) == 0
    told = 'none of the profiles that came has "email" or "a."b"": check output_properties'
    assert (mp.err.count("\n"), mp.err.count(told)) == (1, 1)
    assert mp(*profiles, "--output-properties", "plan", "--where", 'properties["plan"] == "none"') == 0
    assert mp.err == "", "where no profile comes, it is not for its name"


def test_properties_that_are_not_kept_are_not_looked_for(
    mp: Mp, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red without `kept`."""
    monkeypatch.setenv("MP_EXCLUDE_PROPERTIES", "plan")
    monkeypatch.setenv("MP_HASH_PROPERTIES", "$email")
    assert mp("fetch", "profiles", "--no-progress", "--output-properties", '["plan", "$email"]') == 0
    assert mp.err == ""


def test_names_may_be_repeated_or_a_json_list() -> None:
    """Red when a JSON list is split at its commas."""
    assert names(None) is None
    assert names(["a, b", "c"]) == ["a, b", "c"]  # Red when a comma ends a name: two others would be asked for.
    assert names(['["a, b", "c"]']) == ["a, b", "c"]
    with pytest.raises(ConfigurationError):
        names(["[1, 2"])


def queries(sandbox: Sandbox, tmp_path: Path) -> Account:
    ledger = Ledger(tmp_path / "home" / LEDGER_FILE)
    return ledger.account(sandbox.environment["MP_QUERY_URL"], sandbox.project_id, "query")


def test_a_spent_hour_stops_the_sync_and_says_when(mp: Mp, sandbox: Sandbox, tmp_path: Path) -> None:
    """Red when the resource's client has a ledger of its own."""
    account = queries(sandbox, tmp_path)
    account.learn(RateLimits(hourly_limit=60))
    for _ in range(60):
        account.take("page 0")
    assert mp("fetch", "profiles", "-p") == 1
    assert re.search(r"Error: page 0: all 60 requests of the hour are spent, asked again from .* on, in \d+ s", mp.err)
    assert sandbox.journal.requests == []


def test_an_hour_that_is_spent_by_our_guess_alone_is_asked_about(
    mp: Mp, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red when the ledger refuses by the documented limit, for both streams; with the setting it is no guess."""
    ledger = Ledger(tmp_path / "home" / LEDGER_FILE)
    for url, api in (("MP_QUERY_URL", "query"), ("MP_EXPORT_URL", "export")):
        account = ledger.account(sandbox.environment[url], sandbox.project_id, api)
        for _ in range(60):
            account.take("a request")
    days = ("--from", "2026-01-01", "--to", "2026-01-01")
    assert mp("fetch", "profiles", "-p") == 0
    assert mp("fetch", "events", *days) == 0
    assert "if Mixpanel allows no more: it is asked" in mp.err
    monkeypatch.setenv("MP_HOURLY_EXPORTS", "61")
    assert mp("fetch", "events", *days) == 1
    assert "0 of the hour's 61 are left" in mp.err
    monkeypatch.setenv("MP_HOURLY_EXPORTS", "62")
    assert mp("fetch", "events", *days) == 0


def test_a_429_for_the_hour_of_somebody_else_does_not_stop_what_comes_a_minute_later(
    mp: Mp, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Red when the 3,600 s of the header are believed: a whole window is no time when it has room."""
    sandbox.faults = [Fault("engage", "limited:window")]
    assert mp("fetch", "profiles", "-p") == 1
    assert mp("fetch", "profiles", "-p") == 1
    assert re.search(r"Mixpanel says that the hour is spent, asked again from .* on, in [56]\d s", mp.err)
    assert len(sandbox.journal.requests) == 1
    with sqlite3.connect(tmp_path / "home" / LEDGER_FILE) as ledger:
        ledger.execute("update told set blocked_until = blocked_until - 60")
    ledger.close()
    assert mp("fetch", "profiles", "-p") == 0


def test_a_sync_that_does_not_fit_stops_after_page_0(mp: Mp, sandbox: Sandbox, tmp_path: Path) -> None:
    """Where session pages count, 2 requests are left, and 5 pages are needed. Red without `keep_to` in the first op."""
    account = queries(sandbox, tmp_path)
    account.learn(RateLimits(hourly_limit=60))
    account.block(0.001, session_page=True)
    time.sleep(0.01)
    for _ in range(58):
        account.take("page 0")
    assert mp("fetch", "profiles", "-p") == 1
    assert "4 requests, 4 of them counted: 1 of the hour's 60 are left" in mp.err
    assert "stopped: sync later, or with on_quota=wait" in mp.err
    assert len(sandbox.journal.requests) == 1


def test_a_sync_of_most_of_the_hour_warns_before_it_fetches(mp: Mp, sandbox: Sandbox) -> None:
    """48 pages are 80% of 60. Red without the warning in `_announce`."""
    assert mp("fetch", "profiles", "-p", "--page-size", "1") == 0
    assert "of the hourly quota" not in mp.err, "45 pages are less"
    for number in range(3):
        sandbox.population.add(f"new-{number}", {})
    assert mp("fetch", "profiles", "-p", "--page-size", "1") == 0
    first = mp.err.splitlines()[0]
    assert first.startswith("48 pages are 80% of the hourly quota of 60 queries")


def test_status_and_plan_tell_what_is_known(mp: Mp, sandbox: Sandbox) -> None:
    """Red when the ledger of the run is not the one that is read."""
    assert mp("status") == 0
    assert (mp.result["profiles"], mp.result["events"]) == (None, None)
    mp("fetch", "profiles", "-p")
    mp("fetch", "events", "-p", "--from", "2026-01-01", "--to", "2026-01-03", "--chunk-days", "1")
    sandbox.journal.clear()
    assert mp("status") == 0
    assert (mp.result["profiles"]["rows"], mp.result["profiles"]["last_run_status"]) == (45, "SUCCESS")
    assert mp.result["events"]["date_ranges"] == [["2026-01-01", "2026-01-03"]]
    assert (mp.result["quota"]["queries"]["left"], mp.result["quota"]["exports"]["left"]) == (59, 57)
    assert mp("plan", "profiles") == 0
    assert (mp.result["requests"], mp.result["counted_requests"], mp.result["left"]) == (5, 1, 59)
    assert mp("plan", "events", "--from", "2025-01-01", "--to", "2025-12-31") == 0
    assert (mp.result["requests"], mp.result["left"], mp.result["fits"]) == (53, 57, True)
    assert mp("plan", "events", "--from", "2025-01-01", "--to", "2025-12-31", "--chunk-days", "5") == 0
    assert (mp.result["requests"], mp.result["fits"]) == (73, False)
    assert mp.result["wait_seconds"] > 3000
    assert mp("plan", "all", "--last", "7d") == 0
    counted = [mp.result[name]["counted_requests"] for name in ("profiles", "events", "cohorts", "annotations")]
    assert counted == [1, 1, 1, 0]
    assert (mp.result["queries"]["counted_requests"], mp.result["queries"]["left"]) == (3, 59)
    assert mp("plan", "all", "--format", "table") == 0
    assert re.search(r"^annotations +- +0 +59 +True", mp.out, re.MULTILINE)
    assert mp("status", "--format", "table") == 0
    assert re.search(r"^profiles +20\S+ +45 +none +SUCCESS", mp.out, re.MULTILINE)
    assert re.search(r"^cohorts +- +- +- +-", mp.out, re.MULTILINE)
    assert "quota: queries: left" in mp.out
    assert sandbox.journal.requests == [], "nothing was asked of Mixpanel"


def test_all_streams_are_fetched_and_one_that_fails_costs_only_itself(mp: Mp, sandbox: Sandbox) -> None:
    sandbox.faults.append(Fault("engage", "status:402", times=None))
    assert mp("fetch", "all", "--from", "2026-01-01", "--to", "2026-01-01", "--no-progress") == 1
    failed = {name for name, result in mp.result.items() if result["has_failures"]}
    assert failed == {"profiles", "cohort_members"}
    assert mp.result["events"]["rows"] > 0
    assert mp.err.count("Error: profiles: page 0: the project's plan has no Query API (402)") == 1
    sandbox.faults.clear()
    assert mp("retry", "cohort_members") == 0
    assert mp("retry", "cohort_members") == 0
    assert mp.err.startswith("Nothing to fetch again")
    assert mp("plan", "cohort_members") == 0
    assert (mp.result["requests"], mp.result["counted_requests"]) == (3, 3)


def test_status_says_why_the_last_run_failed(mp: Mp, sandbox: Sandbox) -> None:
    """Red without the look at the run's failed steps."""
    sandbox.faults.append(Fault("engage", "status:403", times=None))
    mp("fetch", "profiles")
    assert mp("status") == 0
    profiles = mp.result["profiles"]
    assert (profiles["last_sync"], profiles["last_run_status"]) == (None, "FAILURE")
    assert "page 0: Mixpanel answered 403" in profiles["last_run_error"]


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
@pytest.mark.parametrize(
    "command", ["fetch profiles", "retry profiles", "fetch events --from 2026-01-01 --to 2026-01-01", "status"]
)
def test_a_pipe_for_a_database_is_refused_at_once(
    mp: Mp, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """Red (it hangs) without the look at what lies there."""
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.setenv("MP_DUCKDB_PATH", str(tmp_path / "pipe"))
    assert mp(*command.split()) == 3
    assert mp.err == f"Error: {tmp_path / 'pipe'} is a pipe: set MP_DUCKDB_PATH to a file\n"
    assert not sandbox.journal.requests


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


def test_dagster_yaml_of_the_package_is_that_of_the_repository() -> None:
    """A home that `mp` makes must have the limits of the clone's. Red when one of the two is changed."""
    root = Path(__file__).parents[2]
    assert (root / "mixpanel_assets" / "dagster.yaml").read_bytes() == (
        root / "dagster_home" / "dagster.yaml"
    ).read_bytes()


def test_a_settings_file_that_is_there_stays(mp: Mp, sandbox: Sandbox, tmp_path: Path) -> None:
    """Red when `prepare_home` always writes."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    assert mp("status") == 0
    assert (tmp_path / "home" / "dagster.yaml").read_text() == "telemetry:\n  enabled: false\n"


def test_a_home_that_cannot_be_made_is_one_line(
    mp: Mp, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red without the translation in `prepare_home`."""
    (tmp_path / "home").write_text("a file where a folder should be")
    assert mp("fetch", "profiles") == 3
    assert mp.err == f"Error: {tmp_path / 'home'} is a file: set DAGSTER_HOME to a folder\n"
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home" / "within"))
    assert mp("fetch", "profiles") == 3
    assert re.fullmatch(r"Error: cannot make the Dagster home .*: set DAGSTER_HOME to a folder of yours\n", mp.err)


def test_the_version_names_what_questions_need(mp: Mp) -> None:
    assert mp("--version") == 0
    assert re.fullmatch(r"mixpanel-assets \S+, dagster \S+, duckdb \S+, Python \S+\n", mp.out)


def test_before_the_first_sync_a_plan_says_what_will_tell(mp: Mp, sandbox: Sandbox) -> None:
    """Red when the first plan is refused: a CI that plans before it fetches could never begin."""
    assert mp("plan", "profiles") == 0
    assert (mp.result["requests"], mp.result["counted_requests"], mp.result["fits"]) == (None, 1, True)
    assert "page 0 of the first, one request, will say" in mp.err


def test_a_plan_that_does_not_fit_says_what_would(mp: Mp, sandbox: Sandbox) -> None:
    """Red when the advice is not tried: planned with it, it fits; planned with a day less, it does not."""
    years = ("plan", "events", "--from", "2023-01-01", "--to", "2025-12-31", "--chunk-days")
    assert mp(*years, "7") == 0
    assert (mp.result["fits"], mp.result["chunk_days_that_fit"]) == (False, 19)
    assert "Warning: 157 requests do not fit into what is left of the hour: with --chunk-days 19 it does" in mp.err
    assert mp(*years, "19") == 0
    assert mp.result["fits"]
    assert mp(*years, "18") == 0
    assert not mp.result["fits"]
    assert mp("plan", "events", "--from", "1990-01-01", "--to", "2025-12-31") == 0
    assert mp.result["chunk_days_that_fit"] is None
    assert "ask for fewer days" in mp.err


def test_days_may_be_named_as_people_do(monkeypatch: pytest.MonkeyPatch) -> None:
    """Red when days are counted in UTC: the project's clock decides, here fourteen hours ahead of it."""
    monkeypatch.setenv("MP_TIMEZONE", "Pacific/Kiritimati")
    today = datetime.datetime.now(ZoneInfo("Pacific/Kiritimati")).date()
    yesterday, week = (str(today - datetime.timedelta(days=days)) for days in (1, 6))
    assert day_range("yesterday", None, None) == (yesterday, yesterday)
    assert day_range("2026-01-01", "today", None) == ("2026-01-01", str(today))
    assert day_range(None, None, "7d") == (week, str(today))


@pytest.mark.parametrize("command", [(), ("fetch", "profiles"), ("fetch", "events"), ("plan", "events"), ("demo",)])
def test_help_is_there(mp: Mp, command: tuple[str, ...]) -> None:
    """Red when an option's declaration is broken."""
    assert mp(*command, "--help") == 0
    assert "Usage: mp" in mp.out or "Usage: " in mp.out


def test_a_file_env_names_the_project_as_it_does_for_dagster(
    mp: Mp, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red when the file is not read, and when it loses against the environment: Dagster would read another project."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text(f"MP_SECRET='{SECRET}'\nMP_PROJECT_ID={sandbox.project_id}  # ours\nEMPTY\n")
    monkeypatch.delenv("MP_SECRET")
    monkeypatch.setenv("MP_PROJECT_ID", "1")
    assert mp("fetch", "profiles") == 0
    assert SECRET not in mp.out + mp.err
    (tmp_path / ".env").write_bytes(b"MP_SECRET=\xff")
    assert mp("fetch", "profiles") == 3
    assert mp.err == f"Error: cannot read {tmp_path / '.env'}: it is not UTF-8\n"


def test_help_lists_every_command_in_the_order_of_the_job(mp: Mp) -> None:
    """Red when a command is added and not listed, and when Typer sorts them."""
    assert mp("--help") == 0
    listed = re.findall(r"^│ ([a-z]+) ", mp.out, re.MULTILINE)
    assert listed == ["demo", "plan", "fetch", "status", "retry", "export", "sandbox"]
    groups = {group.name for group in app.registered_groups}
    commands = {command.callback.__name__ for command in app.registered_commands if command.callback}
    assert groups | commands == set(listed)
