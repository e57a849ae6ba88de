"""`mp` as scripts and agents use it: exit codes, JSON on stdout, everything else on stderr.

Each test names the guard that it was seen red without. What only a terminal shows is test_terminal.py's.
"""

import datetime
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from mixpanel_assets.cli.day_options import day_range
from mixpanel_assets.cli.fetch import names
from mixpanel_assets.cli.main import app
from mixpanel_assets.errors import ConfigurationError
from mixpanel_assets.sandbox import Fault, Sandbox
from mixpanel_assets_tests.cli.mp import SECRET, Mp

# Dagster's own code calls it while it sets up a resource.
pytestmark = [pytest.mark.process, pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run is deprecated")]


on_posix = pytest.mark.skipif(os.name == "nt", reason="a POSIX shell, POSIX signals")


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


def test_all_streams_are_fetched_and_one_that_fails_costs_only_itself(mp: Mp, sandbox: Sandbox) -> None:
    sandbox.faults.append(Fault("engage", "status:402", times=None))
    assert mp("fetch", "all", "--from", "2026-01-01", "--to", "2026-01-01", "--no-progress") == 1
    failed = {name for name, result in mp.result.items() if result["has_failures"]}
    assert failed == {"profiles", "cohort_members"}
    assert mp.result["events"]["rows"] > 0
    assert mp.err.count("Error: profiles: page 0: the project's plan has no Query API (402)") == 1
    assert mp("fetch", "all", "--from", "2026-01-01", "--to", "2026-01-01", "--no-progress", "--format", "table") == 1
    assert re.search(r"^events +mixpanel.events +\d+ +\S+ +yes +2026-01-01 to 2026-01-01", mp.out, re.MULTILINE)
    assert re.search(r"^profiles .* no .*has no Query API", mp.out, re.MULTILINE)
    sandbox.faults.clear()
    assert mp("retry", "cohort_members") == 0
    assert mp("retry", "cohort_members") == 0
    assert mp.err.startswith("Nothing to fetch again")
    assert mp("plan", "cohort_members") == 0
    assert (mp.result["requests"], mp.result["counted_requests"]) == (3, 3)


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
