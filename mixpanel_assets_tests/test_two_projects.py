"""Two Mixpanel projects and somebody's own asset in one code location, each project served by a sandbox of its own."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest
from dagster._core.definitions.reconstruct import ReconstructableRepository

from mixpanel_assets import fetch_profiles
from mixpanel_assets.alerts import FailedRun
from mixpanel_assets.client.quota import LEDGER_FILE, Ledger
from mixpanel_assets.definitions import build_defs
from mixpanel_assets.errors import ConfigurationError
from mixpanel_assets.executor import threaded_executor
from mixpanel_assets.pools import POOL_LIMITS
from mixpanel_assets.resources import MixpanelResource, StagingResource
from mixpanel_assets.sandbox import Fault, Population, Sandbox
from mixpanel_assets.storage.staging import LocalStaging

DAY = "2026-01-01"
EU = dg.AssetKey(["mixpanel_eu", "profiles"])
US = dg.AssetKey(["mixpanel", "profiles"])
_TOLD: list[FailedRun] = []
_TOLD_OF_OURS: list[FailedRun] = []


@dg.asset(deps=[US, EU])
def their_asset() -> None: ...


defs = dg.Definitions.merge(
    build_defs(on_failure=lambda failed: _TOLD_OF_OURS.append(failed)),
    build_defs(
        name="eu",
        username=dg.EnvVar("EU_USERNAME"),
        secret=dg.EnvVar("EU_SECRET"),
        project_id=dg.EnvVar("EU_PROJECT"),
        query_url=dg.EnvVar("EU_QUERY_URL"),
        export_url=dg.EnvVar("EU_EXPORT_URL"),
        app_url=dg.EnvVar("EU_APP_URL"),
        exclude_properties=["$city"],
        on_failure=_TOLD.append,
    ),
    dg.Definitions(
        assets=[their_asset],
        executor=threaded_executor,
        jobs=[
            dg.define_asset_job("all_profiles", dg.AssetSelection.assets("their_asset").upstream()),
            dg.define_asset_job("all_events", dg.AssetSelection.assets("mixpanel/events", "mixpanel_eu/events")),
        ],
    ),
)


@dataclass
class Location:
    """An instance, and the two sandboxes."""

    instance: dg.DagsterInstance
    us: Sandbox
    eu: Sandbox
    folder: Path

    def run(self, job: str, **options: Any) -> dg.DagsterRun:
        """Run a job to its end."""
        found = ReconstructableRepository.for_module(__name__, "defs").get_reconstructable_job(job)
        quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        with dg.execute_job(found, instance=self.instance, run_config=quiet, **options) as result:
            run = self.instance.get_run_by_id(result.run_id)
        assert run is not None
        return run

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Rows of the DuckDB file that both share."""
        with duckdb.connect(str(self.folder / "mixpanel_data.duckdb"), read_only=True) as connection:
            return connection.execute(sql).fetchall()

    def metadata(self, asset: dg.AssetKey) -> dict[str, Any]:
        """What the last sync said."""
        event = self.instance.get_latest_materialization_event(asset)
        assert event is not None
        assert event.asset_materialization is not None
        return {name: value.value for name, value in event.asset_materialization.metadata.items()}


@pytest.fixture
def location(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Location]:
    us = Sandbox(Population(profiles=45, seed=2, events_per_day=5), page_size=10)
    eu = Sandbox(
        Population(profiles=33, seed=3, events_per_day=7),
        page_size=10,
        username="eu.account",
        secret="eu-secret",
        project_id="22",
    )
    with us, eu, dg.DagsterInstance.local_temp(str(tmp_path), {"telemetry": {"enabled": False}}) as instance:
        for name, value in {**us.environment, "DAGSTER_HOME": str(tmp_path)}.items():
            monkeypatch.setenv(name, value)
        for name in ("USERNAME", "SECRET", "QUERY_URL", "EXPORT_URL", "APP_URL"):
            monkeypatch.setenv(f"EU_{name}", eu.environment[f"MP_{name}"])
        monkeypatch.setenv("EU_PROJECT", "22")
        yield Location(instance, us, eu, tmp_path)


def _ids(sandbox: Sandbox) -> set[str]:
    return {distinct_id for distinct_id, _ in sandbox.population.profiles()}


def test_both_and_theirs_in_one_run(location: Location) -> None:
    """Red when anything that one project keeps is the other's too: a resource, a folder, a schema, an account."""
    assert location.run("all_profiles").is_success
    for schema, sandbox in (("mixpanel", location.us), ("mixpanel_eu", location.eu)):
        stored = {distinct_id for (distinct_id,) in location.query(f"select distinct_id from {schema}.profiles")}
        assert stored == _ids(sandbox)
    # Red when what may be kept of one is asked of the environment, for all.
    for schema, cities in (("mixpanel", True), ("mixpanel_eu", False)):
        query = f"""select count(properties ->> '$."$city"') > 0 from {schema}.profiles"""
        assert location.query(query) == [(cities,)]
    assert location.metadata(US)["dagster/table_name"] == "mixpanel.profiles"
    assert location.metadata(EU)["dagster/table_name"] == "mixpanel_eu.profiles"
    assert location.metadata(EU)["dagster/row_count"] == 33
    ledger = Ledger(location.folder / LEDGER_FILE)
    for sandbox in (location.us, location.eu):
        account = ledger.account(sandbox.environment["MP_QUERY_URL"], sandbox.project_id, "query")
        assert account.quota().used == 1


def test_days_of_both_in_one_run(location: Location) -> None:
    """Red when chunks of both wait in one folder: it is named after the run."""
    days = {"dagster/asset_partition_range_start": DAY, "dagster/asset_partition_range_end": "2026-01-03"}
    assert location.run("all_events", tags=days).is_success
    for schema, per_day in (("mixpanel", 5), ("mixpanel_eu", 7)):
        found = location.query(f"select event_time::date::varchar, count(*) from {schema}.events group by 1 order by 1")
        assert found == [(f"2026-01-0{day}", per_day) for day in (1, 2, 3)]
    starts = {file.name for file in location.folder.glob("export_starts*") if file.suffix != ".lock"}
    assert starts == {"export_starts", "export_starts_22"}


def test_each_has_its_failed_pages_and_its_retry(location: Location) -> None:
    """Red when the retry of one looks at the other's table, staged pages or history."""
    location.us.faults = [Fault("engage", "status:403", page=3, times=None)]
    location.eu.faults = [Fault("engage", "status:403", page=2, times=None)]
    failed = location.run("all_profiles")
    assert not failed.is_success
    assert [location.metadata(key)["failed_page_indices"] for key in (US, EU)] == [[3], [2]]
    location.us.faults, location.eu.faults = [], []
    for sandbox in (location.us, location.eu):
        sandbox.journal.clear()
    assert location.run("retry_failed_profile_pages_eu").tags["mixpanel/project"] == "eu"
    assert [request.page for request in location.eu.journal.requests] == [2]
    assert location.us.journal.requests == []
    assert [location.metadata(key)["failed_page_indices"] for key in (US, EU)] == [[3], []]
    assert location.query("select count(*) from mixpanel_eu.profiles") == [(33,)]
    assert location.query("select count(*) from mixpanel.profiles") == [(35,)]
    assert location.run("retry_failed_profile_pages").is_success
    assert [request.page for request in location.us.journal.requests] == [3]
    assert location.query("select count(*) from mixpanel.profiles") == [(45,)]


def test_what_is_called_by_name_is_distinct() -> None:
    """Red when a part of a project with a name is named without it."""
    ours, theirs = build_defs().get_repository_def(), build_defs(name="eu", project_id=2).get_repository_def()

    def names(repository: dg.RepositoryDefinition) -> set[str]:
        jobs = [job.name for job in repository.get_all_jobs() if not job.name.startswith("__")]
        ops = [node for job in repository.get_all_jobs() for node in job.all_node_defs]
        pools = {op.pool for op in ops if isinstance(op, dg.OpDefinition) and op.pool}
        others: list[Any] = [*repository.schedule_defs, *repository.sensor_defs]
        resources = repository.get_top_level_resources()
        named = {*jobs, *pools, *(op.name for op in ops), *(other.name for other in others), *resources}
        # What is named after the key of an asset has the name within.
        return {name for name in named if "__" not in name}

    assert names(theirs) == {f"{name}_2" if name in POOL_LIMITS else f"{name}_eu" for name in names(ours)}


def test_data_views_of_one_project_share_its_pools() -> None:
    """Red when pools are named after the project's name: twice Mixpanel's five would ask at a time."""

    def pools(**given: Any) -> set[str | None]:
        definitions = build_defs(**given).get_repository_def()
        ops = [node for job in definitions.get_all_jobs() for node in job.all_node_defs]
        return {op.pool for op in ops if isinstance(op, dg.OpDefinition) and op.pool}

    assert pools(name="a", project_id=7, workspace_id=1) == pools(name="b", project_id="7", workspace_id=2)
    assert pools(name="a", project_id=dg.EnvVar("EU_PROJECT")).isdisjoint(pools(name="a", project_id=7))
    assert pools(name="view", project_id=dg.EnvVar("MP_PROJECT_ID"), workspace_id=3) == pools() == {*POOL_LIMITS}


def test_own_pools_have_the_limits_of_ours(location: Location) -> None:
    """Red without `of_all_projects`: nobody would hold the pools of a further project to Mixpanel's five."""
    assert location.run("sync_profiles_eu").is_success
    limits = {pool.name: pool.limit for pool in location.instance.event_log_storage.get_pool_limits()}
    assert limits["mixpanel_engage_EU_PROJECT"] == limits["mixpanel_engage"] == 5


def test_its_alert_tells_of_its_own_runs(location: Location) -> None:
    """Red when the other's failures are told too."""
    sensors = [defs.get_repository_def().get_sensor_def(f"alert_on_failure{name}") for name in ("_eu", "")]
    location.us.faults = [Fault("engage", "status:403", times=None)]
    location.eu.faults = [Fault("engage", "status:403", times=None)]
    runs = [location.run(job) for job in ("sync_profiles", "sync_profiles_eu", "all_profiles")]
    for run in runs:
        failure = location.instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.RUN_FAILURE).records
        event = failure[0].event_log_entry.dagster_event
        assert event is not None
        for sensor in sensors:
            sensor(dg.build_run_status_sensor_context("x", event, location.instance, run).for_run_failure())
    assert [told.run_id for told in _TOLD] == [run.run_id for run in runs[1:]]
    assert [told.run_id for told in _TOLD_OF_OURS] == [runs[0].run_id, runs[2].run_id]


def test_the_command_and_the_functions_are_the_first_projects(location: Location) -> None:
    """Red when the default names, folders or files of the environment's project change."""
    assert fetch_profiles().to_dict()["rows"] == 45
    assert location.eu.journal.requests == []
    assert not (location.folder / "staging" / "projects").exists()


def test_a_refusal_names_the_projects_own_settings(location: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    """Red without `in_own_names`: whoever reads it looks at the account of another project."""
    monkeypatch.setenv("EU_SECRET", "another")
    run = location.run("sync_profiles_eu")
    events = [
        entry.get_dagster_event() for entry in location.instance.all_logs(run.run_id, dg.DagsterEventType.STEP_FAILURE)
    ]
    said = "".join(event.step_failure_data.error_display_string for event in events)
    assert "check EU_USERNAME, EU_SECRET, EU_PROJECT and MP_REGION" in said


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"name": "EU"}, "name 'EU': a project's name is up to 40 small letters, digits and _, and begins with a let"),
        ({"name": "eu"}, "project 'eu' needs its project_id: a number, or dagster.EnvVar"),
        ({"name": "io_manager", "project_id": 2}, "name 'io_manager': 'warehouse_io_manager' is the key of a resource"),
        (
            {"name": "eu", "project_id": 2, "resources": {"staging": StagingResource(folder="x")}},
            "resource staging: of project 'eu' it needs project='eu'",
        ),
        ({"schema": "main"}, "schema 'main': a schema's name is up to 40"),
        ({"schema": 'a"; drop schema b'}, "schema '.*': a schema's name is up to 40"),
        ({"key_prefix": "a//b"}, "key_prefix 'a//b': its parts are letters, digits and _"),
        ({"key_prefix": ["a", "b c"]}, "key_prefix 'a/b c': its parts"),
        ({"project_id": "my project"}, "project_id must be the project's number, as in its URL: digits only"),
        ({"region": "mars"}, "region 'mars' is unknown: use one of us, eu, in"),
        ({"timezone": "Mars/Base"}, "timezone 'Mars/Base' is not a known time zone"),
        ({"events_start_date": "soon"}, "events_start_date 'soon' is not a date"),
        ({"event_times": "local"}, "event_times must be utc or project, not 'local'"),
        ({"query_url": "ftp://x"}, r"query_url is not an http\(s\) URL"),
        ({"username": dg.EnvVar("A")}, "username and secret belong together"),
        ({"username": dg.EnvVar("A"), "secret": "hush"}, 'secret must be dagster.EnvVar."NAME".: what the variable'),
    ],
)
def test_what_cannot_be_used_is_refused_in_a_sentence(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^{words}") as refused:
        build_defs(**wrong)
    assert "\n" not in str(refused.value)
    assert "hush" not in str(refused.value)


def test_what_is_said_of_one_project_says_nothing_of_another(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Red when a Data View, an address or an hourly quota of the environment's project is taken for another's."""
    for name, value in {
        "DAGSTER_HOME": str(tmp_path),
        "MP_USERNAME": "a",
        "MP_SECRET": "s",
        "MP_PROJECT_ID": "1",
        "MP_WORKSPACE_ID": "5",
        "MP_HOURLY_QUERIES": "240",
        "MP_QUERY_URL": "http://127.0.0.1:9/q",
    }.items():
        monkeypatch.setenv(name, value)
    client = MixpanelResource(project_id="2", region="eu").client()
    assert client.project.params == {"project_id": "2"}
    assert client.project.query_url == "https://eu.mixpanel.com/api/query"
    assert client.queries.quota().limit == 60
    client.close()
    with pytest.raises(ConfigurationError, match=r"^EU_SECRET not set: export the .* MP_USERNAME and EU"):
        MixpanelResource(variables={"MP_SECRET": "EU_SECRET"}).client()
    assert StagingResource(project="eu").place() == LocalStaging(tmp_path / "staging" / "projects" / "eu")


def test_a_secret_is_nowhere_but_in_the_environment(location: Location) -> None:
    """Red when a variable is resolved into a field: the UI shows those."""
    mixpanel = build_defs(name="eu", project_id=2, username=dg.EnvVar("EU_USERNAME"), secret=dg.EnvVar("EU_SECRET"))
    assert mixpanel.resources is not None
    shown = repr(mixpanel.resources["mixpanel_eu"])
    assert "EU_SECRET" in shown
    assert os.environ["EU_SECRET"] not in shown
    location.run("sync_profiles_eu")
    for file in location.folder.rglob("*"):
        assert file.is_dir() or b"eu-secret" not in file.read_bytes(), file
