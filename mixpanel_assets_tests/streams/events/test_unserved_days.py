"""Days that the server does not serve, at the edges of what is asked for: older than the plan's history, or not there
yet. They cost no other day, are not owed, and are asked for once."""

import datetime
import io
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mixpanel_assets import fetch_events, partitions, settings
from mixpanel_assets.cli.main import run
from mixpanel_assets.client.client import MixpanelClient
from mixpanel_assets.client.served_days import Edge, EdgeRefusedError, KnownRefusalError, Unserved, edge_refused
from mixpanel_assets.client.start_rate import StartRate
from mixpanel_assets.errors import MixpanelError
from mixpanel_assets.results import ParallelFetchResult
from mixpanel_assets.sandbox import Fault
from mixpanel_assets.streams.days import days_between, split_date_range
from mixpanel_assets.streams.events import reports as event_reports
from mixpanel_assets.streams.events.assets import EVENTS_KEY
from mixpanel_assets.streams.events.fetch import save_export
from mixpanel_assets.streams.events.query import EventsQuery
from mixpanel_assets_tests.events_pipeline import FIRST, EventsPipeline, events_pipeline

# Dagster's own use of its own deprecated name.
pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run is deprecated")

LAST = "2026-01-07"
DAYS = days_between(FIRST, LAST)


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EventsPipeline]:
    """The server's today is the last of seven days, and so is the project's."""
    monkeypatch.setattr(partitions, "today", lambda *_: LAST)
    with events_pipeline(tmp_path, monkeypatch, today=lambda: LAST) as pipeline:
        yield pipeline


def refused(pipeline: EventsPipeline) -> int:
    return sum(status != 200 for *_, status in pipeline.asked())


class TestBeyondTheHistory:
    @pytest.mark.parametrize("history_days", [0, 1, 3, 5])
    def test_the_days_that_the_plan_serves_come_and_the_others_are_named(
        self, pipeline: EventsPipeline, history_days: int
    ) -> None:
        """Red when a refused range fails as a whole, and when the words of the refusal are not read."""
        pipeline.sandbox.history_days = history_days
        served = DAYS[-1 - history_days :]
        outcome = pipeline.sync(FIRST, LAST)
        assert outcome.success, outcome.words
        assert sorted(outcome.days) == served
        assert pipeline.rows() == pipeline.truth(*served)
        assert pipeline.asked() == [(FIRST, LAST, 403), (served[0], LAST, 200)]
        left = [FIRST, DAYS[-2 - history_days]]
        assert outcome.said["unserved_date_ranges"] == [left]
        assert (outcome.said["failed_date_ranges"], outcome.said["failed_batches"]) == ([], 0)
        assert outcome.said["requests"] == 2
        days = left[0] if left[0] == left[1] else " to ".join(left)
        assert f"{days}: beyond the history that the project's plan serves, left out and not owed (" in outcome.words
        assert f"(Date range exceeds {history_days} days into the past)" in outcome.words
        assert pipeline.query("select count(*) from {schema}.missing_days") == [(0,)]
        assert "nothing to fetch again" in pipeline.retry().words
        assert pipeline.failed() == set()

    @pytest.mark.parametrize(
        ("status", "body"),
        [
            (403, '{"request":"/export?from_date=2026-01-01","error":"Date range exceeds 3 day(s) into the past"}'),
            (403, "Date range exceeds 3-DAYS in the past."),
            (400, '{"error":"from_date exceeds 3 days into the past for project 1234567"}'),
            (403, '{"error":"Date range exceeds the limit of your plan into the past"}'),
            (422, "date range exceeds 0.5 weeks into the past"),
        ],
    )
    def test_whatever_the_words_are(self, pipeline: EventsPipeline, status: int, body: str) -> None:
        """Red without the search for the first day served, where the words give no number of days."""
        pipeline.sandbox.faults = [
            Fault("export", f"status:{status}", body=body, from_date=day, times=None) for day in DAYS[:3]
        ]
        outcome = pipeline.sync(FIRST, LAST)
        assert outcome.success, outcome.words
        assert sorted(outcome.days) == DAYS[3:]
        assert pipeline.rows() == pipeline.truth(*DAYS[3:])
        assert refused(pipeline) <= 3

    def test_a_history_that_counts_today_is_found(self, pipeline: EventsPipeline) -> None:
        """Red when what the words say is believed, and what is refused then is not."""
        body = "Date range exceeds 4 days into the past"
        for day in DAYS[:3]:
            pipeline.sandbox.faults.append(Fault("export", "status:403", body=body, from_date=day, times=None))
        outcome = pipeline.sync(FIRST, LAST)
        assert (outcome.success, sorted(outcome.days)) == (True, DAYS[3:])

    @pytest.mark.parametrize("chunk_days", [1, 2, 3])
    def test_chunks_that_are_known_to_be_too_old_are_not_asked_for(
        self, pipeline: EventsPipeline, chunk_days: int
    ) -> None:
        """Red when each chunk learns for itself."""
        pipeline.sandbox.history_days = 1
        result = fetch_events(FIRST, LAST, chunk_days=chunk_days)
        assert (result.has_failures, refused(pipeline)) == (False, 1)
        assert pipeline.rows() == pipeline.truth(*DAYS[-2:])
        chunks = split_date_range(FIRST, LAST, chunk_days)
        assert sum(status == 200 for *_, status in pipeline.asked()) == sum(last >= DAYS[-2] for _, last in chunks)

    def test_chunks_that_wait_for_their_turn_hear_of_it(self, pipeline: EventsPipeline) -> None:
        """Red when what others learned meanwhile is not looked at: ten at a time would be refused. It counts as no
        request, neither for the hour nor for the chunk."""

        class Turn(StartRate):
            @contextmanager
            def turn(self, stop: threading.Event) -> Iterator[None]:
                client.served_days.note(EdgeRefusedError("", Unserved(Edge.TOO_OLD, "said")), (FIRST, LAST), LAST)
                yield

        client = MixpanelClient(settings.project(), export_starts=Turn())
        retrier = client.retrier(logging.getLogger(__name__))
        with pytest.raises(KnownRefusalError, match="not all of it is served: said"):
            retrier.call(lambda: save_export(client, EventsQuery(), FIRST, LAST, io.BytesIO(), retrier))
        client.close()
        assert (pipeline.asked(), retrier.attempts, retrier.counted_requests) == ([], [], 0)
        assert client.exports.quota().used == 0

    def test_days_that_failed_before_are_owed_no_more(self, pipeline: EventsPipeline) -> None:
        """Red when only a materialization settles a day: it is asked for with each retry, for ever."""
        pipeline.sandbox.faults = [Fault("export", "status:500", from_date=FIRST, times=None)]
        assert not pipeline.sync(FIRST, "2026-01-03", chunk_days=1).success
        assert list(event_reports.owed_days(pipeline.instance, EVENTS_KEY)) == [FIRST]
        pipeline.sandbox.faults = []
        pipeline.sandbox.history_days = 4
        outcome = pipeline.retry()
        assert outcome.success, outcome.words
        assert event_reports.owed_days(pipeline.instance, EVENTS_KEY) == {}
        assert pipeline.query("select count(*) from {schema}.missing_days") == [(0,)]
        assert "nothing to fetch again" in pipeline.retry().words
        # The rows of such days stay.
        assert pipeline.rows() == pipeline.truth("2026-01-02", "2026-01-03")

    def test_where_none_is_served_the_run_is_green_and_functions_and_mp_say_so(
        self, pipeline: EventsPipeline, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """Red when days that nobody can bring fail a run, as those that can be fetched again do."""
        pipeline.sandbox.history_days = 2
        outcome = pipeline.sync(FIRST, "2026-01-03", chunk_days=1)
        assert (outcome.success, outcome.days, pipeline.rows(), refused(pipeline)) == (True, {}, [], 1)
        with pytest.raises(MixpanelError, match="Mixpanel serves none of these days"):
            fetch_events(FIRST, "2026-01-03", parallel=True)
        capfd.readouterr()
        assert run(["fetch", "events", "--from", FIRST, "--to", "2026-01-03", "--no-progress"]) == 1
        out, err = capfd.readouterr()
        assert out == ""
        assert [line.partition(": ")[0] for line in err.splitlines()] == [f"{FIRST} to 2026-01-03", "Error"]

    def test_days_that_fail_beside_them_are_owed(self, pipeline: EventsPipeline) -> None:
        pipeline.sandbox.history_days = 3
        pipeline.sandbox.faults = [Fault("export", "status:500", from_date="2026-01-05", times=None)]
        outcome = pipeline.sync(FIRST, LAST, chunk_days=2)
        assert not outcome.success
        assert outcome.said["failed_date_ranges"] == [["2026-01-05", "2026-01-06"]]
        assert list(event_reports.owed_days(pipeline.instance, EVENTS_KEY)) == ["2026-01-05", "2026-01-06"]

    def test_a_filter_that_speaks_of_the_past_is_no_such_refusal(self, pipeline: EventsPipeline) -> None:
        """Red without `own_words`: days would be left out for a filter that Mixpanel quotes."""
        where = 'properties["note"] == "exceeds 3 days into the past, to_date after today"'
        pipeline.sandbox.faults = [Fault("export", "status:400", body=f"Unable to parse where: {where}", times=None)]
        outcome = pipeline.sync(FIRST, LAST, where=where)
        assert not outcome.success
        assert "check where" in outcome.words


@pytest.mark.parametrize(
    ("text", "edge", "history_days"),
    [
        ("Date range exceeds 86 days into the past", Edge.TOO_OLD, 86),
        ("date range exceeded 1 day into the past.", Edge.TOO_OLD, 1),
        ("Date range exceeds 1,095 days into the past", Edge.TOO_OLD, 1095),
        ("Date range exceeds 90 calendar days into the past", Edge.TOO_OLD, 90),
        ("Date range exceeds 12 months into the past", Edge.TOO_OLD, None),
        ("Date range exceeds 1.5 days into the past", Edge.TOO_OLD, None),
        ("from_date cannot be more than 90 days ago", Edge.TOO_OLD, 90),
        ("from_date must not be earlier than 60 days before today", Edge.TOO_OLD, 60),
        ("to_date cannot be later than today", Edge.NOT_YET, None),
        ("toDate must not be after today", Edge.NOT_YET, None),
        ("from_date is in the future", Edge.NOT_YET, None),
        ("You have exceeded your quota of events in the past 30 days", None, None),
        ("Your plan exceeds the usual number of events of the past month", None, None),
        ("Date range cannot be more than 100 days", None, None),
        ("User does not have permission to perform this action", None, None),
        ("to_date must be after from_date", None, None),
        ("update your plan today", None, None),
    ],
)
def test_only_words_about_an_edge_are_taken_for_them(text: str, edge: Edge | None, history_days: int | None) -> None:
    """Red with looser patterns: what is taken for an edge is not owed."""
    refused = edge_refused("message", text)
    told = (refused.unserved.edge, refused.history_days) if refused else (None, None)
    assert told == (edge, history_days)


class TestNotThereYet:
    @pytest.mark.parametrize("ahead", [1, 2])
    def test_the_days_before_come_and_the_line_names_the_time_zone(
        self, pipeline: EventsPipeline, monkeypatch: pytest.MonkeyPatch, ahead: int
    ) -> None:
        """Red when the whole chunk fails: hourly, for up to fourteen hours of each day."""
        monkeypatch.setenv("MP_TIMEZONE", "Pacific/Auckland")
        monkeypatch.setattr(partitions, "today", lambda *_: days_after(LAST, ahead))
        outcome = pipeline.sync(FIRST, days_after(LAST, ahead), chunk_days=30)
        assert outcome.success, outcome.words
        assert sorted(outcome.days) == DAYS
        assert pipeline.rows() == pipeline.truth(*DAYS)
        assert refused(pipeline) <= 1 + ahead // 2 + 1
        assert "does not exist yet for Mixpanel, left out" in outcome.words
        assert "MP_TIMEZONE is Pacific/Auckland; projects made since 2023 count their days in UTC" in outcome.words
        assert pipeline.query("select count(*) from {schema}.missing_days") == [(0,)]
        assert event_reports.owed_days(pipeline.instance, EVENTS_KEY) == {}
        assert pipeline.failed() == set()

    def test_days_that_are_over_are_believed_to_be_there(
        self, pipeline: EventsPipeline, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Red when the server is believed: a passing fault would leave days out for good, and those of other chunks."""
        monkeypatch.setattr(partitions, "today", lambda *_: days_after(LAST, 30))
        last = days_after(LAST, 3)
        outcome = pipeline.sync(FIRST, last, chunk_days=8)
        assert not outcome.success
        assert pipeline.rows() == pipeline.truth(*DAYS)
        assert outcome.said["failed_date_ranges"] == [[days_after(LAST, 1), last]]
        assert "unserved_date_ranges" not in outcome.said
        reason = "for future ones (to_date cannot be later than today), against our clock: check it and MP_TIMEZONE"
        assert f"events of 2026-01-08 to 2026-01-08: Mixpanel takes these days {reason}" in outcome.words
        pipeline.sandbox.history_days = 0
        body = "Date range exceeds 9 days into the past"
        pipeline.sandbox.faults = [Fault("export", "status:403", body=body, from_date=LAST)]
        monkeypatch.setattr(partitions, "today", lambda *_: LAST)
        assert not pipeline.sync(LAST).success

    def test_today_alone_is_green_and_comes_when_it_exists(
        self, pipeline: EventsPipeline, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        today = days_after(LAST, 1)
        monkeypatch.setattr(partitions, "today", lambda *_: today)
        outcome = pipeline.sync(today)
        assert (outcome.success, outcome.days, pipeline.asked()) == (True, {}, [(today, today, 400)])

    def test_mp_says_it_in_one_line_and_ends_well(
        self, pipeline: EventsPipeline, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(partitions, "today", lambda *_: days_after(LAST, 1))
        capfd.readouterr()
        assert run(["fetch", "events", "--from", FIRST, "--to", days_after(LAST, 1), "-p", "--no-progress"]) == 0
        _, err = capfd.readouterr()
        assert err.count("\n") == 1
        assert "MP_TIMEZONE" in err


def test_both_edges_of_one_chunk(pipeline: EventsPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(partitions, "today", lambda *_: days_after(LAST, 1))
    pipeline.sandbox.history_days = 4
    result = fetch_events(FIRST, days_after(LAST, 1), parallel=True, chunk_days=10)
    assert isinstance(result, ParallelFetchResult)
    assert (result.successful_batches, result.has_failures) == (1, False)
    assert pipeline.rows() == pipeline.truth(*DAYS[2:])


def days_after(day: str, days: int) -> str:
    return (datetime.date.fromisoformat(day) + datetime.timedelta(days=days)).isoformat()
