"""Dagster's storage in Postgres: opened from dagster_home/dagster-postgres.yaml, or named in one line."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped] # Dagster brings it, its types are a package of their own

from mixpanel_assets import postgres
from mixpanel_assets.cli.main import run
from mixpanel_assets.errors import InstanceError
from mixpanel_assets.runs import storage_faults
from mixpanel_assets.sandbox import Fault, Population, Sandbox
from mixpanel_assets_tests.postgres import PASSWORD, Database, needs_postgres

ROOT = Path(__file__).parent.parent
SETTINGS = ROOT / "dagster_home" / "dagster-postgres.yaml"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: Database) -> Path:
    """One host."""
    home = tmp_path / "home"
    home.mkdir()
    shutil.copy(SETTINGS, home / "dagster.yaml")
    for name, value in {**database.environment, "DAGSTER_HOME": str(home)}.items():
        monkeypatch.setenv(name, value)
    return home


WRONG = {
    "the password": ({"DAGSTER_PG_PASSWORD": "p@ss/w%rds"}, "it refuses the user or the password"),
    "the user": ({"DAGSTER_PG_USERNAME": "nobody"}, "it refuses the user or the password"),
    "the database": ({"DAGSTER_PG_DB": "nowhere"}, "it has no such database: create it"),
    "the port": ({"DAGSTER_PG_PORT": "1"}, "nobody listens there"),
}


@needs_postgres
@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_one_line_without_the_password_before_any_request(
    home: Path, wrong: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Red without CheckedPostgresStorage: after 11 s and six lines, "too many retries for DB connection"."""
    variables, words = WRONG[wrong]
    with Sandbox(Population(profiles=5)) as sandbox:
        for name, value in {**sandbox.environment, **variables}.items():
            monkeypatch.setenv(name, value)
        assert run(["fetch", "profiles", "--no-progress"]) == 1
        assert sandbox.journal.requests == []
    err = capfd.readouterr().err
    assert err.startswith("Error: Postgres at 127.0.0.1:")
    assert err.endswith(f": {words}\n")
    assert err.count("\n") == 1
    assert PASSWORD not in err


@needs_postgres
@pytest.mark.process
def test_readmes_commands_make_a_host(home: Path) -> None:
    (home / "dagster.yaml").unlink()
    [commands] = re.findall("<!-- host -->\n```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-ec", commands], cwd=ROOT, env={**os.environ, "PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert str(home) in done.stdout


@needs_postgres
def test_dagsters_own_name_of_the_storage_is_opened_as_ours(
    home: Path, database: Database, capfd: pytest.CaptureFixture[str]
) -> None:
    """Red without `_OURS`, with SQLAlchemy 2.1: "No module named 'psycopg'"."""
    named = {"postgres_url": database.url.replace("+psycopg2", "")}
    (home / "dagster.yaml").write_text(yaml.safe_dump({"storage": {"postgres": named}}))
    assert run(["status"]) == 0
    assert capfd.readouterr().err == ""
    assert database.rows("select count(*) from event_logs") == [(0,)]


@pytest.mark.parametrize("url", ["postgresql//me:secret@host/x", "postgresql://me@host:secret/x", "secret"])
def test_a_url_that_is_none_is_not_repeated(url: str) -> None:
    with pytest.raises(InstanceError, match="the URL of Postgres is none") as refusal, postgres.named(url):
        postgres.engine(url).connect()
    assert "secret" not in str(refusal.value)


@needs_postgres
def test_a_server_that_goes_away_meanwhile_is_one_line(tmp_path: Path) -> None:
    """Red when only SQLAlchemy's own errors are translated."""
    from dagster_postgres.utils import retry_pg_connection_fn

    engine = postgres.engine("postgresql+psycopg2://me:secret@127.0.0.1:1/x")
    with pytest.raises(InstanceError) as refusal, storage_faults.named(tmp_path):
        retry_pg_connection_fn(engine.connect, retry_limit=0)
    assert str(refusal.value).startswith("Postgres, where Dagster's history lies, does not answer")
    assert "secret" not in str(refusal.value)


@needs_postgres
def test_failed_pages_show_and_are_fetched_again(
    home: Path, database: Database, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As with SQLite: the run is red, `mp status` says what is owed, `mp retry` brings it, and nothing is held then."""
    with Sandbox(Population(profiles=50), page_size=10, latency=0.05) as sandbox:
        for name, value in sandbox.environment.items():
            monkeypatch.setenv(name, value)
        sandbox.faults.append(Fault("engage", "status:403", page=2, times=1))
        assert run(["fetch", "profiles", "--parallel", "--no-progress"]) == 1
        capfd.readouterr()
        assert run(["status"]) == 0
        status = json.loads(capfd.readouterr().out)
        assert (status["profiles"]["failed_page_indices"], status["profiles"]["last_run_status"]) == ([2], "FAILURE")
        assert (status["profiles"]["rows"], status["quota"]["queries"]["left"]) == (40, 59)
        assert run(["retry", "profiles", "--no-progress"]) == 0
        capfd.readouterr()
        assert run(["status"]) == 0
        status = json.loads(capfd.readouterr().out)
        assert (status["profiles"]["failed_page_indices"], status["profiles"]["rows"]) == ([], 50)
    assert database.rows("select run_id from concurrency_slots where run_id is not null") == []
    assert database.rows("select * from pending_steps") == []
    assert database.rows("select count(*) from mixpanel_assets_counted") == [(1,)]
    assert not (home / "quota.sqlite").exists()


def test_both_files_of_settings_differ_in_the_storage_alone() -> None:
    with_sqlite, with_postgres = (yaml.safe_load((ROOT / "dagster_home" / name).read_text()) for name in
                                  ("dagster.yaml", SETTINGS.name))  # fmt: skip
    assert with_sqlite.pop("storage") != with_postgres.pop("storage")
    assert with_sqlite == with_postgres


@pytest.mark.process
def test_nothing_of_postgres_is_imported_with_sqlite(tmp_path: Path) -> None:
    code = "import sys; from mixpanel_assets.cli.main import run; run(['status']); print({*sys.modules})"
    variables = {**os.environ, "DAGSTER_HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=True)
    assert "'sqlite3'" in done.stdout
    assert "'psycopg2'" not in done.stdout
    assert "'dagster_postgres'" not in done.stdout
