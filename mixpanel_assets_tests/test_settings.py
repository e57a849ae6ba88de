"""Places and addresses as people set them: what cannot be one is refused in one line, before anything is opened."""

import os
import socket
from contextlib import suppress
from pathlib import Path

import dagster as dg
import pytest

from mixpanel_assets import fetch_events, fetch_profiles, settings
from mixpanel_assets.cli.main import INVALID, run
from mixpanel_assets.errors import ConfigurationError
from mixpanel_assets.resources import StagingResource, warehouse_at
from mixpanel_assets.sandbox import Population, Sandbox
from mixpanel_assets_tests.pipeline import SYNC, Pipeline

URLS = {
    "https://h/api?": "leave out what begins with ? or #",
    "https://h/api?key=hunter2": "leave out what begins with ? or #",
    "https://h/api#hunter2": "leave out what begins with ? or #",
    "https://hunter2@h/api": "must not hold credentials",
    "https://:hunter2@h": "must not hold credentials",
    "https://@h/hunter2": "must not hold credentials",
    "https://h:hunter2/": "is not an http(s) URL",
    "https://h:99999/": "is not an http(s) URL",
    "https://[hunter2/": "is not an http(s) URL",
    "https:///hunter2": "is not an http(s) URL",
    "https://h/a b": "is not an http(s) URL",
    "https://h/a\tb": "is not an http(s) URL",
    "https://h\\@other/": "is not an http(s) URL",
    "ftp://h/hunter2": "is not an http(s) URL",
    "h.example/api": "is not an http(s) URL",
}
SCHEMES = ["md:", "md:my_db", "motherduck:x", "s3://b/x", "S3:/b/x", "postgres:dbname=x password=hunter2", ":memory:"]
SCHEMES += [
    "https://h/x.duckdb",
    "file:///x.duckdb",
    "sqlite:x.db",
    ":memory:name",
    "ducklake:x",
    "gs://b/x",
    "abfss://b",
]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("MP_")]:
        monkeypatch.delenv(name)
    for name in ("MP_USERNAME", "MP_SECRET"):
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("MP_PROJECT_ID", "1")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))


def refusal(error: pytest.ExceptionInfo[ConfigurationError]) -> str:
    message = str(error.value)
    assert "hunter2" not in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("setting", ["MP_QUERY_URL", "MP_EXPORT_URL", "MP_APP_URL"])
@pytest.mark.parametrize("url", URLS)
def test_what_is_no_address_is_refused(monkeypatch: pytest.MonkeyPatch, setting: str, url: str) -> None:
    monkeypatch.setenv(setting, url)
    with pytest.raises(ConfigurationError) as error:
        settings.project()
    assert refusal(error).startswith(setting)
    assert URLS[url] in refusal(error)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080/api/query", "https://h", "https://bücher.example/a-b_c/"])
def test_an_address_is_taken(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("MP_QUERY_URL", url)
    assert settings.project().query_url == url.rstrip("/")


@pytest.mark.parametrize("place", SCHEMES)
def test_a_place_that_is_not_of_this_machine_is_refused(monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    """Red when it is taken for a path: a local file of that name would be made."""
    monkeypatch.setenv("MP_DUCKDB_PATH", place)
    with pytest.raises(ConfigurationError, match="MP_DUCKDB_PATH begins with ") as error:
        settings.database()
    assert refusal(error).endswith(": set it to a file of this machine (one of that name: ./ before it)")
    if not place.startswith("ducklake:"):
        with pytest.raises(ConfigurationError, match="database begins with"):
            warehouse_at(place, print)
    if not place.startswith(("s3://", "gs://", "file://")):  # Where staged files may be.
        with pytest.raises(ConfigurationError, match="folder of staging begins with"):
            _ = StagingResource(folder=place).place()
    monkeypatch.setenv("DAGSTER_HOME", place)
    with pytest.raises(ConfigurationError, match="DAGSTER_HOME begins with"):
        settings.home()


@pytest.mark.skipif(os.name == "nt", reason="POSIX's kinds of files")
def test_what_is_no_file_is_refused_for_a_database(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
    kinds = {"pipe": "pipe", "link": "pipe", "socket": "socket", "/dev/null": "device", ".": "folder"}
    for name, kind in kinds.items():
        with pytest.raises(ConfigurationError, match=f" is a {kind}: set database to a file"):
            warehouse_at(str(tmp_path / name), print)
        if kind != "folder":
            with pytest.raises(ConfigurationError, match=f" is a {kind}: set folder of staging to a folder"):
                _ = StagingResource(folder=str(tmp_path / name)).place()
    with pytest.raises(ConfigurationError, match="ends like a folder: add the name of a file"):
        warehouse_at(f"{tmp_path}/new/", print)
    with pytest.raises(ConfigurationError, match="the home of nobody"):
        warehouse_at("~no-such-user/x.duckdb", print)


def test_a_file_that_is_there_or_not_yet_is_taken(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    for name in ("there", "not yet", "a:b"):
        assert warehouse_at(str(tmp_path / name), print).name == str(tmp_path / name)


@pytest.mark.skipif(os.name == "nt", reason="a name with a colon is none there")
def test_a_file_with_a_colon_in_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Earlier versions took md:sales for a file and made it; taken as one now, rows would never reach MotherDuck."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "md:sales").touch()
    with pytest.raises(ConfigurationError, match=r"\./ before it"):
        warehouse_at("md:sales", print)
    assert warehouse_at("./md:sales", print).name == str(tmp_path / "md:sales")


@pytest.mark.parametrize("path", [r"C:\data\x.duckdb", "c:/data/x.duckdb", r"\\server\share\x.duckdb"])
def test_a_drive_of_windows_is_no_scheme(path: str) -> None:
    assert warehouse_at(path, print).name == str(Path(path).absolute())


@pytest.mark.parametrize("command", ["fetch profiles", "retry profiles", "retry events", "status", "plan profiles"])
def test_mp_refuses_a_place_before_anything_is_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """Red without the look in `prepare_home`: DAGSTER_HOME is there, and `plan` speaks of something else."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MP_DUCKDB_PATH", "md:sales")
    assert run(command.split()) == INVALID
    assert "MP_DUCKDB_PATH begins with 'md:'" in capsys.readouterr().err
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("by", ["environment", "warehouse", "warehouse_io_manager"])
def test_a_run_of_dagster_refuses_a_place_before_the_first_request(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, by: str
) -> None:
    """Red for the IO manager without the look in `create_io_manager`: all pages are fetched before."""
    monkeypatch.chdir(tmp_path)
    with Sandbox(Population(profiles=5)) as sandbox, dg.DagsterInstance.ephemeral() as instance:
        pipeline = Pipeline.start(instance, sandbox, tmp_path / "home", monkeypatch)
        resources = {by: {"config": {"database": "md:sales"}}}
        if by == "environment":
            monkeypatch.setenv("MP_DUCKDB_PATH", "md:sales")
            resources = {}
        with suppress(dg.DagsterResourceFunctionError):  # What a resource refuses, `execute_job` raises.
            pipeline.run(SYNC, {"resources": resources})
        [record] = instance.get_runs()
        outcome = pipeline.outcome(record.run_id)
        assert not outcome.success
        logs = instance.all_logs(record.run_id)
        assert " begins with 'md:'" in outcome.words + str([entry.dagster_event for entry in logs])
        assert sandbox.journal.requests == []
    assert not (tmp_path / "md:sales").exists()


def test_the_functions_refuse_a_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MP_DUCKDB_PATH", "ducklake:x")
    for fetch in (lambda: fetch_profiles(parallel=True), lambda: fetch_events("2026-01-01", "2026-01-02")):
        with pytest.raises(ConfigurationError, match="MP_DUCKDB_PATH begins with 'ducklake:'"):
            fetch()
    assert [*tmp_path.iterdir()] == []
