"""The property assets in Dagster: after a real sync, through the one IO manager, with drift told and checked."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest

from mixpanel_assets.definitions import build_defs
from mixpanel_assets.properties import first_views
from mixpanel_assets.properties.assets import EVENT_PROPERTIES_KEY, PROFILE_PROPERTIES_KEY
from mixpanel_assets.sandbox import Population, Sandbox
from mixpanel_assets.streams.profiles.assets import PROFILES_KEY
from mixpanel_assets_tests.events_pipeline import FIRST, events_pipeline
from mixpanel_assets_tests.pipeline import Pipeline

# Dagster's own use of its own deprecated name.
pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run is deprecated")


def materialize(instance: dg.DagsterInstance, key: dg.AssetKey, **config: Any) -> dg.ExecuteInProcessResult:
    """Materialize a property asset and run its checks, in this process."""
    job = build_defs().resolve_implicit_global_asset_job_def()
    op = "__".join(key.path)
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    return job.execute_in_process(
        instance=instance,
        asset_selection=[key],
        run_config={"ops": {op: {"config": config}}, **quiet},
        raise_on_error=False,
    )


def said(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    """Metadata of the materialization."""
    [event] = result.get_asset_materialization_events()
    metadata = event.step_materialization_data.materialization.metadata
    return {name: value.value for name, value in metadata.items()}


def verdict(result: dg.ExecuteInProcessResult) -> tuple[bool, str | None]:
    """Whether the check passed, and its words."""
    [check] = result.get_asset_check_evaluations()
    assert check.severity == dg.AssetCheckSeverity.WARN
    return check.passed, check.description


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipeline]:
    with (
        Sandbox(Population(profiles=40, hostile=True)) as sandbox,
        dg.DagsterInstance.local_temp(str(tmp_path)) as instance,
    ):
        yield Pipeline.start(instance, sandbox, tmp_path, monkeypatch)


def test_profiles_have_columns_after_a_sync(pipeline: Pipeline) -> None:
    assert pipeline.sync().success
    result = materialize(pipeline.instance, PROFILE_PROPERTIES_KEY)
    assert result.success
    metadata = said(result)
    names = {name for _, text in pipeline.sandbox.population.profiles() for name in json.loads(text)}
    # Red when the handler is not among the IO manager's.
    assert metadata["dagster/row_count"] == len(names)
    assert metadata["dagster/table_name"] == "mixpanel.profile_properties"
    assert (metadata["new_properties"], metadata["views"]) == ([], ["profiles_wide"])
    assert verdict(result) == (True, "all properties are what they were")
    rows = pipeline.query("select distinct_id, mp_email, properties ->> '/$email' from {schema}.profiles_wide")
    assert rows
    assert len(rows) == 40
    assert all(shown == text and shown for _, shown, text in rows)
    # What people's values are is not the event log's business.
    assert not any(row[1] in metadata["properties"] for row in rows)


def test_drift_is_told_and_warned_of(pipeline: Pipeline) -> None:
    assert pipeline.sync(exclude_properties=["$name"]).success
    assert verdict(materialize(pipeline.instance, PROFILE_PROPERTIES_KEY))[0]
    assert pipeline.sync(exclude_properties=["$city"], hash_properties=["$created"]).success
    result = materialize(pipeline.instance, PROFILE_PROPERTIES_KEY)
    metadata = said(result)
    assert result.success
    assert (metadata["new_properties"], metadata["gone_properties"]) == (["$name"], ["$city"])
    assert metadata["retyped_properties"] == [{"property": "$created", "from": "TIMESTAMP", "to": "VARCHAR"}]
    # Red when the check does not look at both lists.
    assert verdict(result) == (False, "`$created`: TIMESTAMP became VARCHAR; `$city`: gone")


def test_too_little_memory_is_said_in_one_line_and_changes_nothing(pipeline: Pipeline) -> None:
    """DuckDB reads 2,048 rows at a time: 200 MB of JSON here. Red when memory_mb does not reach DuckDB."""
    assert pipeline.sync().success
    assert materialize(pipeline.instance, PROFILE_PROPERTIES_KEY).success
    pipeline.query(
        "create or replace table {schema}.profiles as select i::varchar as distinct_id, "
        "('{{\"wide\":\"' || repeat('x', 100000) || '\"}}')::json as properties, null::timestamp as last_seen, "
        "now() as synced_at from range(2048) as numbers(i)"
    )
    starved = materialize(pipeline.instance, PROFILE_PROPERTIES_KEY, memory_mb=100)
    assert not starved.success
    logs = "\n".join(entry.message for entry in pipeline.instance.all_logs(starved.run_id))
    assert "is as it was): Out of Memory Error" in logs
    known = "select count(*) from {schema}.profile_properties where name = 'wide'"
    assert pipeline.query(known) == [(0,)]
    assert materialize(pipeline.instance, PROFILE_PROPERTIES_KEY, memory_mb=4000).success
    assert pipeline.query(known) == [(1,)]


def test_before_any_sync_it_says_in_one_line_what_to_do(pipeline: Pipeline) -> None:
    result = materialize(pipeline.instance, PROFILE_PROPERTIES_KEY)
    assert not result.success
    logs = "\n".join(entry.message for entry in pipeline.instance.all_logs(result.run_id))
    assert "there is no table mixpanel.profiles yet: materialize the asset profiles first" in logs


def test_events_have_columns_and_views_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with events_pipeline(tmp_path, monkeypatch) as pipeline:
        assert pipeline.sync(FIRST, "2026-01-03").success
        result = materialize(pipeline.instance, EVENT_PROPERTIES_KEY, event_views=["*"])
        assert result.success
        [(events, names)] = pipeline.query("select count(*), count(distinct event_name) from {schema}.events")
        views = said(result)["views"]
        assert len(views) == names + 1
        counts = [pipeline.query(f'select count(*) from {{schema}}."{view}"')[0][0] for view in views]
        # Red when a view of one event shows all.
        assert counts[0] == sum(counts[1:]) == events


def test_a_sync_asks_for_them_where_automation_is_on(pipeline: Pipeline) -> None:
    """As soon as profiles were synced, once per sync; the events beside them are not waited for."""
    defs, both = build_defs(), dg.AssetSelection.assets(PROFILE_PROPERTIES_KEY, EVENT_PROPERTIES_KEY)
    first = dg.evaluate_automation_conditions(defs, pipeline.instance, both)
    assert first.total_requested == 0
    assert pipeline.sync().success
    second = dg.evaluate_automation_conditions(defs, pipeline.instance, both, cursor=first.cursor)
    assert (second.get_num_requested(PROFILE_PROPERTIES_KEY), second.total_requested) == (1, 1)
    third = dg.evaluate_automation_conditions(defs, pipeline.instance, both, cursor=second.cursor)
    assert third.total_requested == 0


def test_a_sync_that_goes_on_is_waited_for(pipeline: Pipeline) -> None:
    defs, both = build_defs(), dg.AssetSelection.assets(PROFILE_PROPERTIES_KEY, EVENT_PROPERTIES_KEY)
    start = dg.evaluate_automation_conditions(defs, pipeline.instance, both)
    assert pipeline.sync().success
    job = defs.resolve_implicit_global_asset_job_def().get_subset(asset_selection={PROFILES_KEY})
    going_on = pipeline.instance.create_run_for_job(
        job, status=dg.DagsterRunStatus.STARTED, asset_selection=frozenset({PROFILES_KEY})
    )
    first = dg.evaluate_automation_conditions(defs, pipeline.instance, both, cursor=start.cursor)
    # Red without `any_deps_in_progress`.
    assert first.total_requested == 0
    pipeline.instance.report_run_canceled(going_on)
    second = dg.evaluate_automation_conditions(defs, pipeline.instance, both, cursor=first.cursor)
    # Red without `since_last_handled`: the update is no news any more.
    assert second.total_requested == 1


def test_a_sync_before_the_sensors_first_look_is_seen(pipeline: Pipeline) -> None:
    """Red without `_NEVER_MADE`, and endless without its `since`."""
    defs, both = build_defs(), dg.AssetSelection.assets(PROFILE_PROPERTIES_KEY, EVENT_PROPERTIES_KEY)
    assert pipeline.sync().success
    first = dg.evaluate_automation_conditions(defs, pipeline.instance, both)
    assert (first.get_num_requested(PROFILE_PROPERTIES_KEY), first.total_requested) == (1, 1)
    second = dg.evaluate_automation_conditions(defs, pipeline.instance, both, cursor=first.cursor)
    third = dg.evaluate_automation_conditions(defs, pipeline.instance, both, cursor=second.cursor)
    assert (second.total_requested, third.total_requested) == (0, 0)


def test_typed_views_are_there_after_the_first_sync(pipeline: Pipeline) -> None:
    """Red without `ensure_views`."""
    assert pipeline.sync().success
    assert pipeline.query("select count(*) from {schema}.profiles_wide") == [(40,)]
    assert pipeline.query("select count(*) > 0 from {schema}.profile_properties") == [(True,)]


def test_typed_views_of_events_are_there_after_the_first_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with events_pipeline(tmp_path, monkeypatch) as pipeline:
        assert pipeline.sync(FIRST, "2026-01-03").success
        assert pipeline.query("select count(*) from {schema}.events_wide") == pipeline.query(
            "select count(*) from {schema}.events"
        )


def test_views_that_cannot_be_made_leave_the_sync_green(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """Red when `ensure_views` raises; and a large table is left to the asset, with a word."""
    monkeypatch.setattr(first_views, "MOST_ROWS", 39)
    large = pipeline.sync()
    assert large.success
    assert "mixpanel.profiles_wide is not made yet, since 40 rows take a while" in large.words
    monkeypatch.setattr(first_views, "MOST_ROWS", 40)
    with duckdb.connect(str(pipeline.database)) as connection:
        connection.execute("create table mixpanel.profiles_wide as select 1 as mine")
    hindered = pipeline.sync()
    assert hindered.success
    assert "mixpanel.profiles_wide was not made, the rows are stored: " in hindered.words
    assert pipeline.query("select mine from {schema}.profiles_wide") == [(1,)]
