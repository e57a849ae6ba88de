"""Projects with Data Views, where each request has to name one."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from mixpanel_assets import fetch_events, fetch_profiles, settings
from mixpanel_assets.cli.main import run
from mixpanel_assets.errors import ConfigurationError, FatalError
from mixpanel_assets.resources import MixpanelResource
from mixpanel_assets.results import ParallelFetchResult
from mixpanel_assets.sandbox import Fault, Population, Sandbox

# Dagster's own code calls it while it sets up a resource.
pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run is deprecated")

DAY = "2026-01-01"


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    with Sandbox(Population(profiles=25, events_per_day=5), page_size=10, workspace_id="77") as sandbox:
        for name, value in {**sandbox.environment, "DAGSTER_HOME": str(tmp_path / "home")}.items():
            monkeypatch.setenv(name, value)
        for name in ("MP_DUCKDB_PATH", "MP_EVENTS_START_DATE", "MP_TIMEZONE", "MP_WORKSPACE_ID"):
            monkeypatch.delenv(name, raising=False)
        yield sandbox


def test_both_apis_name_it(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Red without `Project.params`, of later pages too."""
    monkeypatch.setenv("MP_WORKSPACE_ID", " 77 ")
    assert not fetch_profiles(parallel=True).has_failures
    assert not fetch_events(DAY, DAY).has_failures
    assert [request.params["workspace_id"] for request in sandbox.journal.requests] == ["77"] * 4


def test_without_it_the_variable_is_named(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FatalError, match="check MP_WORKSPACE_ID: workspace_id is required"):
        fetch_profiles()
    with pytest.raises(FatalError, match="check MP_WORKSPACE_ID: workspace_id is required"):
        fetch_events(DAY, DAY)
    assert all("workspace_id" not in request.params for request in sandbox.journal.requests)
    sandbox.journal.clear()
    monkeypatch.setenv("MP_WORKSPACE_ID", "main")
    with pytest.raises(ConfigurationError, match="MP_WORKSPACE_ID must be the number of a Data View"):
        fetch_profiles()
    assert not sandbox.journal.requests


def test_the_resource_goes_before_the_environment(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MP_WORKSPACE_ID", "5")
    assert settings.project().workspace_id == "5"
    mixpanel = MixpanelResource(workspace_id=77)
    client = mixpanel.client()
    assert client.query_engage_page(0)["total"] == 25
    assert "workspace 77" in client.events_source
    mixpanel.teardown_after_execution(dg.build_init_resource_context())


def test_what_failed_of_one_view_is_not_fetched_from_another(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Red when the view is no part of whose data it is: the rows of two views would lie in one table."""
    monkeypatch.setenv("MP_WORKSPACE_ID", "77")
    sandbox.faults = [Fault("export", "status:403", from_date=DAY)]
    result = fetch_events(DAY, "2026-01-02", chunk_days=1, parallel=True)
    assert isinstance(result, ParallelFetchResult)
    assert result.failed_date_ranges == ((DAY, DAY),)
    sandbox.journal.clear()
    monkeypatch.setenv("MP_WORKSPACE_ID", "78")
    assert run(["retry", "events"]) == 0
    assert "Nothing to fetch again" in capfd.readouterr().err
    assert not sandbox.journal.requests
    monkeypatch.setenv("MP_WORKSPACE_ID", "77")
    assert run(["retry", "events"]) == 0
    assert [request.from_date for request in sandbox.journal.requests] == [DAY]
