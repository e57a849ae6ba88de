"""`limit`: a sample of the events, which tells of no day that it is whole."""

import pytest

from mixpanel_assets import fetch_events
from mixpanel_assets.cli.main import run
from mixpanel_assets.errors import ConfigurationError
from mixpanel_assets.runs.syncs import checked_config
from mixpanel_assets.sandbox import Fault
from mixpanel_assets.streams.events.assets import EVENTS
from mixpanel_assets.streams.events.chunking import sample_of
from mixpanel_assets.streams.events.missing import _text
from mixpanel_assets.streams.events.query import EventsQuery
from mixpanel_assets_tests.events_pipeline import FIRST, EventsPipeline

pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run is deprecated")

LAST = "2026-01-03"
EVERYTHING = "from (from {schema}.events) select count(*), min(synced_at), max(synced_at)"
DAYS = "from {schema}.event_days order by day"


def test_a_sample_settles_no_day_and_touches_none(pipeline: EventsPipeline) -> None:
    """Red where the rows go into `events`, where a day becomes materialized, and where what is owed counts as come."""
    pipeline.sandbox.faults = [Fault("export", "status:500", from_date=LAST, times=None)]
    assert not pipeline.sync(FIRST, LAST, chunk_days=1).success
    pipeline.sandbox.faults = []
    before = pipeline.query(EVERYTHING), pipeline.query(DAYS), pipeline.materialized(), pipeline.failed()
    sent = len(pipeline.asked())
    outcome = pipeline.sync(FIRST, "2026-01-05", limit=150)
    assert outcome.success, outcome.words
    assert not outcome.checks
    assert [asked[:2] for asked in pipeline.asked()[sent:]] == [(FIRST, "2026-01-05")]
    [said] = outcome.days.values()
    assert list(outcome.days) == ["None"]
    assert (said["fetched_rows"], said["dagster/row_count"], said["query"]["limit"]) == (150, 150, 150)
    assert said["dagster/table_name"] == "mixpanel.events_sample"
    assert pipeline.query("select count(*), count(distinct day) from {schema}.events_sample") == [(150, 2)]
    assert (pipeline.query(EVERYTHING), pipeline.query(DAYS), pipeline.materialized(), pipeline.failed()) == before
    # What failed is still owed, and comes whole.
    assert pipeline.retry().success
    assert pipeline.rows() == pipeline.truth(FIRST, "2026-01-02", LAST)


def test_a_sample_takes_the_place_of_the_last_one_and_a_failed_one_takes_nothing(pipeline: EventsPipeline) -> None:
    """Red when samples add up; when a day is owed of which a sample failed; red when a range with a limit is halved."""
    assert pipeline.sync(FIRST, LAST, limit=7, events=["Search"]).success
    assert pipeline.query("select distinct event_name from {schema}.events_sample") == [("Search",)]
    assert pipeline.sync(FIRST, LAST, limit=5).success
    assert pipeline.query("select count(*) from {schema}.events_sample") == [(5,)]
    pipeline.sandbox.faults = [Fault("export", "timeout-error", times=None)]
    sent = len(pipeline.asked())
    assert not pipeline.sync(FIRST, LAST, limit=9).success
    assert {asked[:2] for asked in pipeline.asked()[sent:]} == {(FIRST, LAST)}
    assert pipeline.query("select count(*) from {schema}.events_sample") == [(5,)]
    assert "nothing to fetch again" in pipeline.retry().words


def test_both_faces_say_which_table_it_is(pipeline: EventsPipeline, capsys: pytest.CaptureFixture[str]) -> None:
    """Red where the result names the table of the stream."""
    stored = fetch_events(FIRST, LAST, parallel=True, limit=20, instance=pipeline.instance)
    assert (stored.table, stored.relation().aggregate("count(*)").fetchall()) == ("mixpanel.events_sample", [(20,)])
    assert run(["fetch", "events", "--from", FIRST, "--to", LAST, "--limit", "30", "--no-progress"]) == 0
    printed = capsys.readouterr().out
    assert '"table": "mixpanel.events_sample"' in printed
    assert '"rows": 30' in printed


def test_lines_that_cannot_be_stored_are_set_aside(pipeline: EventsPipeline) -> None:
    """Red where a sample deletes, or adds to, what was set aside of days."""
    pipeline.sandbox.population.replace_events(
        FIRST, [("Odd", '{"time": "never"}'), ("Good", '{"time": 1767225600000}')]
    )
    for _ in range(2):
        assert not pipeline.sync(FIRST, limit=10).success
        rejected = pipeline.query("select asset, count(*) from {schema}.rejected_rows group by all")
        assert rejected == [("events_sample", 1)]
    assert pipeline.query("select event_name from {schema}.events_sample") == [("Good",)]


@pytest.mark.unit
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"limit": 0}, "limit must be between 1 and 100,000, not 0"),
        ({"limit": 100_001}, "limit must be between 1 and 100,000, not 100,001"),
        ({"limit": 5, "retry_failed_ranges": True}, "leave out limit"),
        ({"limit": "many"}, "limit must be a whole number"),
    ],
)
def test_wrong_limits_are_refused(given: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        checked_config(EVENTS, given)


@pytest.mark.unit
def test_a_sample_covers_nothing_and_its_query_reads_as_before() -> None:
    """Red without `limit` in `covers`; red when versions before are not found again in `missing_days`."""
    whole, some = EventsQuery(), EventsQuery(limit=5)
    assert whole.covers(some)
    assert not some.covers(whole)
    assert not some.covers(some)
    assert "limit" not in _text(whole)
    with pytest.raises(ValueError, match="at most 100 days: 101 are too many"):
        sample_of({f"{day:04}-01-01": some for day in range(1000, 1101)})
