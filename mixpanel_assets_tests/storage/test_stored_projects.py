"""Two Mixpanel projects in one DAGSTER_HOME and one file, by mistake: what is stored of one stays its own."""

from pathlib import Path

import duckdb
import pytest

from mixpanel_assets import fetch_events, fetch_profiles
from mixpanel_assets.errors import WarehouseError
from mixpanel_assets.sandbox import Population, Sandbox
from mixpanel_assets.storage.stored_projects import keep_to_project

pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run is deprecated")

DAYS = ("2026-01-01", "2026-01-02")


def test_another_project_takes_no_place_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Red without the look at whose rows a table holds: days of the other are as many, so nothing else refuses them,
    and a filtered sync adds its people to ours."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    ours = Sandbox(Population(profiles=20, seed=1, events_per_day=10))
    others = Sandbox(Population(profiles=20, seed=2, events_per_day=20), project_id="22")
    with ours, others:

        def use(sandbox: Sandbox) -> None:
            for name, value in sandbox.environment.items():
                monkeypatch.setenv(name, value)

        def stored() -> list[tuple[str]]:
            ids = "select distinct_id from mixpanel.profiles union all select insert_id from mixpanel.events order by 1"
            with duckdb.connect(str(tmp_path / "mixpanel_data.duckdb"), read_only=True) as connection:
                return connection.execute(ids).fetchall()

        use(ours)
        fetch_profiles()
        fetch_events(*DAYS)
        before = stored()
        use(others)
        words = "holds rows of project 1234567, and this sync is of project 22"
        with pytest.raises(WarehouseError, match=f"events {words}"):
            fetch_events(*DAYS)
        with pytest.raises(WarehouseError, match=f"profiles {words}"):
            fetch_profiles(where='properties["plan"] == "pro"')
        assert stored() == before
        assert others.journal.requests == [], "and nothing was asked"
        use(ours)
        assert fetch_events(*DAYS).to_dict()["rows"] == 20


@pytest.mark.unit
def test_where_a_project_is_asked_for_may_change() -> None:
    """Red when the host or a Data View is part of it; what nobody knows is let through."""
    with duckdb.connect() as connection:
        for source in ("project 7 at mixpanel.com", "project 7, workspace 3 at eu.mixpanel.com", None):
            keep_to_project(connection, "profiles", source)
        keep_to_project(connection, "events", "project 8 at data.mixpanel.com")
        with pytest.raises(WarehouseError, match="profiles holds rows of project 7"):
            keep_to_project(connection, "profiles", "project 77 at mixpanel.com")
