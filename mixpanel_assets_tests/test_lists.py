"""Streams that are a list on one page: cohorts, and a toy that is nothing but a folder and a line."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest

from mixpanel_assets.cli.main import run
from mixpanel_assets.definitions import build_defs
from mixpanel_assets.resources import MixpanelResource
from mixpanel_assets.sandbox import Fault, Population, Sandbox
from mixpanel_assets.streams.all import STREAMS
from mixpanel_assets_tests.toy_stream import TOYS

# Dagster's own code calls it while it sets up a resource.
pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run is deprecated")


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    with Sandbox(Population(profiles=20)) as sandbox:
        for name, value in {**sandbox.environment, "DAGSTER_HOME": str(tmp_path / "home")}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("MP_DUCKDB_PATH", str(tmp_path / "mp.duckdb"))
        yield sandbox


def rows(tmp_path: Path, query: str) -> list[Any]:
    with duckdb.connect(str(tmp_path / "mp.duckdb"), read_only=True) as connection:
        return connection.execute(query).fetchall()


def cohort(number: int | str, name: str, **more: Any) -> dict[str, Any]:
    return {"id": number, "name": name, "count": 3, "created": "2019-03-19 23:49:51", **more}


def test_cohorts_are_stored_as_served(sandbox: Sandbox, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """One request, the columns of each, and those that are gone in Mixpanel go."""
    sandbox.lists.cohorts = [cohort(7, "Paying", description="a, b"), cohort("8", "Grüße 🚀"), cohort(9, "")]
    assert run(["fetch", "cohorts"]) == 0
    assert '"rows": 3' in capfd.readouterr().out
    assert [request.endpoint for request in sandbox.journal.requests] == ["cohorts/list"]
    stored = "select cohort_id, name, members, created::varchar, description from mixpanel.cohorts order by 1"
    assert rows(tmp_path, stored) == [
        ("7", "Paying", 3, "2019-03-19 23:49:51", "a, b"),
        ("8", "Grüße 🚀", 3, "2019-03-19 23:49:51", None),
        ("9", "", 3, "2019-03-19 23:49:51", None),
    ]
    sandbox.lists.cohorts = [cohort(7, "Paid"), cohort(9, "New")]
    assert run(["fetch", "cohorts"]) == 0
    assert rows(tmp_path, "select cohort_id, name from mixpanel.cohorts order by 1") == [("7", "Paid"), ("9", "New")]


def test_an_odd_answer_costs_no_stored_row(sandbox: Sandbox, tmp_path: Path) -> None:
    """Red when what is no list is taken for an empty one."""
    defs = build_defs(resources={"mixpanel": MixpanelResource(retry_base_seconds=0)})
    job = defs.resolve_implicit_global_asset_job_def()
    key = dg.AssetKey(["mixpanel", "cohorts"])
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:

        def stores() -> bool:
            return job.execute_in_process(instance=instance, asset_selection=[key], raise_on_error=False).success

        assert stores()
        before = rows(tmp_path, "from mixpanel.cohorts")
        for body in ('{"error":"no"}', "", "null", '{"code":500}', "[", '"terminated early"', '[{"id":7}', "{}"):
            sandbox.faults = [Fault("cohorts/list", "status:200", body=body, times=None)]
            sandbox.clear()
            assert not stores(), body
            assert len(sandbox.journal.requests) == 5, f"{body}: asked for again"
            assert rows(tmp_path, "from mixpanel.cohorts") == before, body


def test_an_empty_list_is_refused_while_rows_are_stored(
    sandbox: Sandbox, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sandbox.lists.cohorts = []
    assert run(["fetch", "cohorts"]) == 0, "a project without cohorts"
    sandbox.lists.cohorts = [cohort(1, "a"), cohort(2, "b")]
    assert run(["fetch", "cohorts"]) == 0
    sandbox.lists.cohorts = []
    assert run(["fetch", "cohorts"]) == 1
    assert "refused to remove 2 of 2 stored cohorts" in capfd.readouterr().err
    assert len(rows(tmp_path, "from mixpanel.cohorts")) == 2
    assert run(["fetch", "cohorts", "--max-removed-fraction", "1"]) == 0
    assert rows(tmp_path, "from mixpanel.cohorts") == []


def test_what_is_no_cohort_is_set_aside(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.lists.cohorts = [cohort(1, "a"), "odd", {"name": "no id"}, {"id": None}, {"id": 1.5}]
    assert run(["fetch", "cohorts"]) == 1
    assert rows(tmp_path, "select cohort_id from mixpanel.cohorts") == [("1",)]
    reasons = "select reason from mixpanel.rejected_rows where asset = 'cohorts' order by row_number"
    assert [reason for (reason,) in rows(tmp_path, reasons)] == ["not an object", "no id", "no id", "no id"]


def test_a_toy_stream_is_a_folder_and_a_line(sandbox: Sandbox, tmp_path: Path) -> None:
    """Red when any part of the code location names the streams one by one."""
    defs = build_defs(streams=(*STREAMS, TOYS))
    repository = defs.get_repository_def()
    assert repository.has_job("sync_toys")
    assert repository.has_job("retry_failed_toy_pages")
    assert repository.has_schedule_def("hourly_toys_schedule")
    assert repository.has_sensor_def("retry_failed_toy_pages_sensor")
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        job = defs.resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(instance=instance, asset_selection=[TOYS.key])
        assert result.success
        checks = {each.check_name: each.passed for each in result.get_asset_check_evaluations()}
    assert checks == {f"toys_{what}": True for what in ("complete", "fresh", "not_fewer", "unique")}
    served = sorted((str(cohort_id), f"Cohort {cohort_id}") for cohort_id in sandbox.population.cohorts)
    assert served
    assert rows(tmp_path, "select toy_id, name from mixpanel.toys order by 1") == served
