"""`mixpanel/identities` in Dagster: after a real sync of events that a merge has given another id meanwhile."""

import json
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from mixpanel_assets import fetch_events, fetch_profiles
from mixpanel_assets.definitions import build_defs
from mixpanel_assets.sandbox import Population, Sandbox

# Dagster's own code calls it while it sets up a resource.
pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run is deprecated")

OLD, NEW = "2026-01-01", "2026-01-02"


def test_events_of_old_days_join_with_profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Red without the view: the old day has an id that nobody has today."""
    with (
        Sandbox(Population(profiles=5, events_per_day=0)) as sandbox,
        dg.DagsterInstance.local_temp(str(tmp_path)) as instance,
    ):
        for name, value in {**sandbox.environment, "DAGSTER_HOME": str(tmp_path / "home")}.items():
            monkeypatch.setenv(name, value)
        people = sandbox.population
        user = next(iter(people.profiles()))[0]
        for day, time in ((OLD, 1767268800), (NEW, 1767355200)):
            people.add_events(day, [("Order", {"time": time, "distinct_id": "anon", "$insert_id": day})])
        fetch_profiles()
        fetch_events(OLD, NEW)
        people.merge(OLD, ["anon"], user)
        people.merge(NEW, ["anon"], user)
        fetch_events(NEW, NEW)
        key = dg.AssetKey(["mixpanel", "identities"])
        job = build_defs().resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(instance=instance, asset_selection=[key])
    [event] = result.get_asset_materialization_events()
    said = {name: value.value for name, value in event.step_materialization_data.materialization.metadata.items()}
    assert (said["merged_ids"], said["merged_persons"], said["doubtful_merges"]) == (2, 1, 0)
    assert "anon" not in json.dumps(said, default=str), "no id is the event log's business"
    with duckdb.connect(str(tmp_path / "home" / "mixpanel_data.duckdb"), read_only=True) as connection:
        joined = connection.execute(
            "select e.day::varchar, e.distinct_id, p.distinct_id from mixpanel.events e "
            "join mixpanel.identities i using (distinct_id) "
            "join mixpanel.profiles p on p.distinct_id = canonical_id order by 1"
        ).fetchall()
    assert joined == [(OLD, "anon", user), (NEW, user, user)]
