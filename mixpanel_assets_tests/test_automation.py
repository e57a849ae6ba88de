"""Schedules, sensors and alerts, asked as Dagster's daemon asks them."""

import datetime
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.events import StepMaterializationData

from mixpanel_assets import partitions, schedules, sensors
from mixpanel_assets.alerts import FailedRun, alert_on_failure
from mixpanel_assets.definitions import defs
from mixpanel_assets.resources import MixpanelResource, kept_limits
from mixpanel_assets.streams.days import days_between
from mixpanel_assets.streams.events.assets import EVENTS, EVENTS_KEY
from mixpanel_assets.streams.profiles.assets import PROFILES, PROFILES_KEY
from mixpanel_assets_tests.hosts import Host
from mixpanel_assets_tests.postgres import needs_postgres

_RANGE = ("dagster/asset_partition_range_start", "dagster/asset_partition_range_end")


@pytest.fixture(params=["SQLite", pytest.param("Postgres", marks=[needs_postgres, pytest.mark.process])])
def instance(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[dg.DagsterInstance]:
    for name, value in {
        "MP_USERNAME": "u",
        "MP_SECRET": "s",
        "MP_PROJECT_ID": "1",
        "MP_QUERY_URL": "http://127.0.0.1:9/q",
        "MP_EXPORT_URL": "http://127.0.0.1:9/e",
        "MP_EVENTS_START_DATE": "2024-01-01",
        "MP_TIMEZONE": "UTC",
        "DAGSTER_HOME": str(tmp_path),
    }.items():
        monkeypatch.setenv(name, value)
    if request.param == "Postgres":
        host = Host.make(tmp_path / "host", request.getfixturevalue("database"))
        opened: AbstractContextManager[dg.DagsterInstance] = host.instance(monkeypatch)
    else:
        opened = dg.DagsterInstance.local_temp(str(tmp_path))
    with opened as made:
        yield made


def _tick(schedule: dg.ScheduleDefinition, instance: dg.DagsterInstance) -> dg.RunRequest | str:
    with dg.build_schedule_context(instance, datetime.datetime.now(datetime.timezone.utc)) as context:
        data = schedule.evaluate_tick(context)
    return data.run_requests[0] if data.run_requests else data.skip_message or ""


def _run(instance: dg.DagsterInstance, retry_of: str = "") -> dg.DagsterRun:
    """A run of mixpanel/profiles that is under way."""
    job = defs.get_repository_def().get_implicit_job_def_for_assets([PROFILES_KEY])
    assert job is not None
    tags = {sensors.RETRY_OF_TAG: retry_of} if retry_of else {}
    return instance.create_run_for_job(
        job, asset_selection=frozenset([PROFILES_KEY]), status=dg.DagsterRunStatus.STARTED, tags=tags
    )


def test_hourly_profiles_do_not_overlap(instance: dg.DagsterInstance) -> None:
    """Red when no run that is under way is looked for."""
    schedule = schedules.hourly_schedule(PROFILES)
    assert isinstance(_tick(schedule, instance), dg.RunRequest)
    run = _run(instance)
    assert _tick(schedule, instance) == f"run {run.run_id[:8]} of mixpanel/profiles is under way"
    assert isinstance(_tick(schedules.hourly_schedule(EVENTS), instance), dg.RunRequest)
    instance.report_run_canceled(run)
    assert isinstance(_tick(schedule, instance), dg.RunRequest)


def test_hourly_events_ask_for_the_trailing_days(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    """Red when today is left out, or when days before the first partition are asked for."""
    today = datetime.datetime.now(datetime.timezone.utc).date()
    request = _tick(schedules.hourly_schedule(EVENTS, lookback_days=3), instance)
    assert isinstance(request, dg.RunRequest)
    asked = [request.tags[name] for name in _RANGE]
    assert asked == [(today - datetime.timedelta(days=3)).isoformat(), today.isoformat()]
    monkeypatch.setenv("MP_EVENTS_START_DATE", today.isoformat())
    assert partitions.trailing_days(3) == (today.isoformat(), today.isoformat())


def _ask(instance: dg.DagsterInstance, sensor: dg.SensorDefinition) -> dg.RunRequest | str:
    with dg.build_sensor_context(instance, resources={"mixpanel": MixpanelResource()}) as context:
        data = sensor.evaluate_tick(context)
    return data.run_requests[0] if data.run_requests else data.skip_message or ""


def _partial(instance: dg.DagsterInstance, pages: list[int]) -> dg.DagsterRun:
    """A sync of profiles that failed with these pages missing."""
    run = _run(instance)
    metadata = {"failed_page_indices": dg.MetadataValue.json(pages)}
    instance.report_dagster_event(
        dg.DagsterEvent(
            dg.DagsterEventType.ASSET_MATERIALIZATION.value,
            run.job_name,
            event_specific_data=StepMaterializationData(dg.AssetMaterialization(PROFILES_KEY, metadata=metadata)),
        ),
        run_id=run.run_id,
    )
    instance.report_run_failed(run)
    return run


def test_failed_pages_are_fetched_again_a_few_times(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red without the pause, without the count of retries, without the look at runs under way."""
    sensor = sensors.retry_sensor(PROFILES)
    assert _ask(instance, sensor) == "no sync yet"
    first = _partial(instance, [3, 4])
    assert "2 pages failed: retry 1 is due in" in str(_ask(instance, sensor))
    monkeypatch.setattr(sensors, "RETRY_AFTER_SECONDS", (0.0, 0.0))
    for number in (1, 2):
        request = _ask(instance, sensor)
        assert isinstance(request, dg.RunRequest)
        assert request.run_key == f"{first.run_id}-{number}"
        assert request.tags[sensors.RETRY_OF_TAG] == first.run_id
        under_way = _run(instance, retry_of=first.run_id)
        assert _ask(instance, sensor) == f"run {under_way.run_id[:8]} is under way"
        instance.report_run_failed(under_way)
    assert "2 pages still fail after 2 retries" in str(_ask(instance, sensor))
    _partial(instance, [])
    assert _ask(instance, sensor) == "the last sync has no failed pages"


def test_no_retry_without_room_in_the_hour(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    """Red when the budget is not asked, or where the instance does not keep it."""
    monkeypatch.setattr(sensors, "RETRY_AFTER_SECONDS", (0.0,))
    _partial(instance, [3])
    account = kept_limits(instance).ledger().account("http://127.0.0.1:9/q", "1", "query")
    account.block(600, session_page=True)
    answer = _ask(instance, sensors.retry_sensor(PROFILES))
    assert "1 pages failed, but 1 requests, 1 of them counted: 0 of the hour's 60 are left" in str(answer)


def test_failed_days_are_fetched_again(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    """Red when owed days are not asked for; when each counts as a request: more than 60 never fit the hour; and when
    another project's are asked for, which the run refuses."""
    sensor = sensors.retry_sensor(EVENTS)
    monkeypatch.setattr(sensors, "RETRY_AFTER_SECONDS", (0.0,))
    metadata = {"failed_date_ranges": dg.MetadataValue.json([["2026-01-02", "2026-04-01"]])}
    others = {"query": dg.MetadataValue.json({"source": "project 2 at 127.0.0.1:9"})}
    instance.report_runless_asset_event(dg.AssetObservation(EVENTS_KEY, metadata={**metadata, **others}))
    assert _ask(instance, sensor) == "no day has failed since it last came"
    instance.report_runless_asset_event(dg.AssetObservation(EVENTS_KEY, metadata=metadata))
    assert isinstance(_ask(instance, sensor), dg.RunRequest)
    for day in days_between("2026-01-02", "2026-04-01"):
        instance.report_runless_asset_event(dg.AssetMaterialization(EVENTS_KEY, partition=day))
    assert _ask(instance, sensor) == "no day has failed since it last came"


def test_the_alert_gets_one_line(instance: dg.DagsterInstance) -> None:
    """Red when the message is taken from the run's own event, which only names the step."""
    told: list[FailedRun] = []

    @dg.op
    def breaks() -> None:
        raise dg.Failure("page 3 is missing; fetch it again")

    @dg.job
    def broken() -> None:
        breaks()

    result = broken.execute_in_process(instance=instance, raise_on_error=False)
    failure = next(event for event in result.all_events if event.event_type == dg.DagsterEventType.PIPELINE_FAILURE)
    context = dg.build_run_status_sensor_context(
        "alert_on_failure", failure, instance, result.dagster_run
    ).for_run_failure()
    alert_on_failure(told.append)(context)
    assert told == [], "a job that is none of ours"
    alert_on_failure(told.append, jobs={"broken"})(context)
    assert told == [FailedRun(result.run_id, "broken", (), "page 3 is missing; fetch it again")]


def test_the_alert_names_the_assets_of_a_schedules_run(instance: dg.DagsterInstance) -> None:
    """Red when the run's selection is asked: a schedule runs a whole job, and selects nothing."""
    told: list[FailedRun] = []
    job = defs.resolve_job_def("sync_profiles")
    result = job.execute_in_process(
        instance=instance, raise_on_error=False, run_config={"resources": {"mixpanel": {"config": {"max_attempts": 1}}}}
    )
    assert not result.dagster_run.asset_selection
    failure = next(event for event in result.all_events if event.event_type == dg.DagsterEventType.PIPELINE_FAILURE)
    context = dg.build_run_status_sensor_context("alert_on_failure", failure, instance, result.dagster_run)
    alert_on_failure(told.append)(context.for_run_failure())
    assert [failed.assets for failed in told] == [("mixpanel/profiles",)]
