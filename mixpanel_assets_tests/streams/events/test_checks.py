"""What the checks of mixpanel/events see, in real runs over days that somebody changed meanwhile."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from mixpanel_assets import partitions
from mixpanel_assets.runs.status import status
from mixpanel_assets.sandbox import Fault
from mixpanel_assets.streams.days import days_between
from mixpanel_assets.streams.events.assets import EVENTS_KEY
from mixpanel_assets_tests.events_pipeline import FIRST, EventsPipeline, defs, events_pipeline

# Dagster's own in-process execution reads a property that it deprecates.
pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run is deprecated")

LAST = "2026-01-09"
DAYS = days_between(FIRST, LAST)
ALL = {
    *("event_keys_unique", "event_days_whole", "events_inside_their_days", "events_accepted"),
    *("events_fresh", "events_not_fewer"),
}


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EventsPipeline]:
    monkeypatch.setattr(partitions, "today", lambda *_: LAST)
    with events_pipeline(tmp_path, monkeypatch) as pipeline:
        yield pipeline


def checked(pipeline: EventsPipeline, *chosen: str) -> dict[str, dg.AssetCheckEvaluation]:
    """Run the checks alone, in a run without partitions: all, or those chosen."""
    keys = [dg.AssetCheckKey(EVENTS_KEY, name) for name in chosen or sorted(ALL)]
    checks = dg.define_asset_job("checks", selection=dg.AssetSelection.checks(*keys))
    job = dg.Definitions.merge(defs, dg.Definitions(jobs=[checks])).resolve_job_def("checks")
    result = job.execute_in_process(instance=pipeline.instance, raise_on_error=False)
    found = {each.check_name: each for each in result.get_asset_check_evaluations()}
    assert result.success == all(each.passed or not each.blocking for each in found.values())
    return found


def failed(found: dict[str, dg.AssetCheckEvaluation]) -> set[str]:
    return {name for name, each in found.items() if not each.passed}


def keep(pipeline: EventsPipeline, day: str, events: int) -> None:
    """Let the sandbox serve so many of a day's events."""
    served = list(pipeline.sandbox.population.events(day, milliseconds=True))
    pipeline.sandbox.population.replace_events(day, served[:events])


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("select 1", set()),
        (
            "insert into {schema}.events from {schema}.events limit 1",
            {"event_keys_unique", "event_days_whole"},
        ),
        ("delete from {schema}.events where event_time::date = '2026-01-03'", {"event_days_whole"}),
        ("update {schema}.event_days set rejected = 2 where day = '2026-01-03'", {"events_accepted"}),
        ("delete from {schema}.event_days where day = '2026-01-03'", {"event_days_whole", "events_inside_their_days"}),
    ],
    ids=["as it was", "a row twice", "a day's rows gone", "rows set aside", "a day's load forgotten"],
)
def test_what_fails(pipeline: EventsPipeline, sql: str, expected: set[str]) -> None:
    """Red for each check that is taken to have passed; and all of them are blocking."""
    assert pipeline.sync(FIRST, LAST).success
    pipeline.query(sql)
    found = checked(pipeline)
    assert set(found) == ALL
    assert failed(found) == expected
    assert {name for name, each in found.items() if each.blocking} == ALL - {"events_fresh", "events_not_fewer"}


def test_rows_that_cannot_be_stored_fail_the_run_that_fetched_them(pipeline: EventsPipeline) -> None:
    """Red without the check: nobody would know. And without its days: other runs would fail as well."""
    pipeline.sandbox.population.add_events(FIRST, [("Search", {"distinct_id": "timeless"})])
    outcome = pipeline.sync(FIRST, "2026-01-02")
    assert not outcome.success
    assert {name for name, passed in outcome.checks.items() if not passed} == {"events_accepted", "events_fresh"}
    words = "1 rows that came cannot be stored and lie in mixpanel.rejected_rows, with the reason"
    assert status(pipeline.instance, print)["events"]["last_run_error"] == words
    assert pipeline.materialized() == {FIRST, "2026-01-02"}
    assert pipeline.sync("2026-01-02").success


def test_rows_that_cannot_be_stored_fail_a_retry(pipeline: EventsPipeline) -> None:
    """Red without the look at them in `_report_each`: no checks follow there."""
    pipeline.sandbox.faults = [Fault("export", "status:403")]
    pipeline.sandbox.population.add_events(FIRST, [("Search", {"distinct_id": "timeless"})])
    pipeline.sync(FIRST)
    outcome = pipeline.retry()
    assert not outcome.success
    assert "1 rows that came cannot be stored and lie in mixpanel.rejected_rows" in outcome.words
    assert pipeline.materialized() == {FIRST}
    assert "nothing to fetch again" in pipeline.retry().words


def test_a_check_that_is_chosen_is_run_alone(pipeline: EventsPipeline) -> None:
    pipeline.sync(FIRST)
    assert set(checked(pipeline, "event_days_whole", "events_fresh")) == {"event_days_whole", "events_fresh"}


def test_a_run_of_some_days_looks_for_repeated_keys_in_these(pipeline: EventsPipeline) -> None:
    pipeline.sync(FIRST, LAST)
    pipeline.query("insert into {schema}.events from {schema}.events where event_time::date = '2026-01-03'")
    # Red without the bounds.
    assert pipeline.sync(FIRST, "2026-01-02").checks["event_keys_unique"] is True
    assert checked(pipeline)["event_keys_unique"].passed is False


@pytest.mark.parametrize(("today", "fresh"), [(LAST, True), ("2026-01-10", True), ("2026-01-11", False)])
def test_events_are_fresh_if_today_or_yesterday_is_loaded(
    pipeline: EventsPipeline, monkeypatch: pytest.MonkeyPatch, today: str, *, fresh: bool
) -> None:
    pipeline.sync(FIRST, LAST)
    monkeypatch.setattr(partitions, "today", lambda *_: today)
    found = checked(pipeline)["events_fresh"]
    behind = int(today[-2:]) - int(LAST[-2:])
    assert (found.passed, found.severity) == (fresh, dg.AssetCheckSeverity.WARN)
    assert found.description == f"the newest loaded day is {LAST}, {behind} days ago"


def test_events_are_not_fresh_if_no_day_was_ever_loaded(pipeline: EventsPipeline) -> None:
    pipeline.sync(FIRST)
    pipeline.query("delete from {schema}.event_days")
    found = checked(pipeline, "events_fresh")["events_fresh"]
    assert (found.passed, found.description) == (False, "no day was ever loaded")


@pytest.mark.parametrize(("events", "passed"), [(25, True), (24, False)])
def test_the_last_day_that_is_over_is_compared_with_those_before(
    pipeline: EventsPipeline, events: int, *, passed: bool
) -> None:
    """Red when today counts (it has none), and when the mean is taken (one day of the seven has none)."""
    keep(pipeline, LAST, 0)
    keep(pipeline, "2026-01-08", events)
    keep(pipeline, "2026-01-03", 0)
    outcome = pipeline.sync(FIRST, LAST)
    assert outcome.success, outcome.words
    assert outcome.checks["events_not_fewer"] is passed
    found = checked(pipeline, "events_not_fewer")["events_not_fewer"]
    assert (found.passed, found.severity) == (passed, dg.AssetCheckSeverity.WARN)
    assert found.description == f"{events} events on 2026-01-08; the 7 loaded days before have 100 (median)"


@pytest.mark.parametrize("last", [FIRST, "2026-01-09"])
def test_with_no_days_to_compare_there_are_not_fewer(pipeline: EventsPipeline, last: str) -> None:
    """One day that is over, or today alone."""
    pipeline.sync(last)
    found = checked(pipeline, "events_not_fewer")["events_not_fewer"]
    assert (found.passed, found.description) == (True, "no days to compare yet")
