"""`mixpanel/events` from the sandbox to DuckDB: what is stored, and what is said."""

import datetime
import json
from pathlib import Path
from typing import Any

import pytest

from mixpanel_assets import partitions
from mixpanel_assets.sandbox import Population
from mixpanel_assets.streams.days import days_between
from mixpanel_assets.streams.events import same_event
from mixpanel_assets_tests.events_pipeline import FIRST, EventsPipeline, events_pipeline

# Dagster's own use of its own deprecated name.
pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run is deprecated")

LAST = "2026-01-06"
DAYS = days_between(FIRST, LAST)


class TestWhole:
    def test_a_range_is_one_run_and_each_day_says_what_it_got(self, pipeline: EventsPipeline) -> None:
        outcome = pipeline.sync(FIRST, LAST, chunk_days=4)
        assert outcome.success, outcome.words
        assert pipeline.rows() == pipeline.truth(*DAYS)
        assert sorted(pipeline.asked()) == [(FIRST, "2026-01-04", 200), ("2026-01-05", LAST, 200)]
        assert list(outcome.days) == DAYS
        ours = ("event_keys_unique", "event_days_whole", "events_inside_their_days")
        assert [outcome.checks.get(name) for name in ours] == [True, True, True]
        assert outcome.said == {
            **outcome.said,
            "failed_date_ranges": [],
            "successful_batches": 2,
            "failed_batches": 0,
            "duplicate_events": 0,
            "counted_requests": 2,
            "dagster/partition_row_count": 100,
            "dagster/row_count": 600,
            "dagster/table_name": "mixpanel.events",
            "new_events": 100,
            "changed_events": 0,
            "gone_events": 0,
        }

    def test_columns_are_what_the_spec_says(self, pipeline: EventsPipeline) -> None:
        pipeline.sync(FIRST)
        described = pipeline.query("select column_name, column_type from (describe {schema}.events)")
        assert dict(described) == {
            "event_name": "VARCHAR",
            "event_time": "TIMESTAMP",
            "distinct_id": "VARCHAR",
            "insert_id": "VARCHAR",
            "properties": "JSON",
            "synced_at": "TIMESTAMP WITH TIME ZONE",
            "day": "DATE",
        }
        name, text = next(iter(pipeline.sandbox.population.events(FIRST, milliseconds=True)))
        served = json.loads(text)
        [stored] = pipeline.query(f"from {{schema}}.events where insert_id = '{served['$insert_id']}'")
        time = datetime.datetime.fromtimestamp(served["time"] / 1000, datetime.timezone.utc).replace(tzinfo=None)
        assert stored[:5] == (name, time, served["distinct_id"], served["$insert_id"], text)

    def test_hostile_values_are_stored_as_served(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        population = Population(events_per_day=300, hostile=True)
        with events_pipeline(tmp_path, monkeypatch, population) as pipeline:
            outcome = pipeline.sync(FIRST)
            assert outcome.success, outcome.words
            assert pipeline.rows() == pipeline.truth(FIRST)
            # Rows with half a surrogate pair are stored, and lie aside as they were served.
            aside = pipeline.query("select reason, row from {schema}.rejected_rows")
            halves = [text for _, text in population.events(FIRST, milliseconds=True) if '"lone"' in text]
            assert len(aside) == len(halves) > 0
            assert all("U+FFFD" in reason and "\\ud800" in row for reason, row in aside)
            assert outcome.said["repaired_rows"] == len(halves)
            assert outcome.said["rejected_rows"] == 0

    def test_an_empty_day_is_a_success(self, pipeline: EventsPipeline) -> None:
        pipeline.sandbox.population.replace_events(FIRST, [])
        outcome = pipeline.sync(FIRST)
        assert outcome.success, outcome.words
        assert pipeline.materialized() == {FIRST}
        assert outcome.said["dagster/partition_row_count"] == 0
        assert pipeline.query("select day::varchar, rows from {schema}.event_days") == [(FIRST, 0)]

    def test_loading_twice_gives_the_same_table_and_says_what_changed(self, pipeline: EventsPipeline) -> None:
        pipeline.sync(FIRST, "2026-01-02")
        before = pipeline.rows()
        again = pipeline.sync(FIRST, "2026-01-02")
        assert pipeline.rows() == before
        assert (again.said["new_events"], again.said["changed_events"], again.said["gone_events"]) == (0, 0, 0)
        first, second, *rest = pipeline.sandbox.population.events(FIRST, milliseconds=True)
        changed = (second[0], second[1].replace('"plan":', '"was_plan":'))
        late = ("Late", {"time": json.loads(first[1])["time"], "distinct_id": "late", "$insert_id": "late"})
        pipeline.sandbox.population.replace_events(FIRST, [changed, *rest, late])
        third = pipeline.sync(FIRST, "2026-01-02")
        numbers = [third.days[FIRST][name] for name in ("new_events", "changed_events", "gone_events")]
        # Red when `_note_replaced` runs after the deletion.
        assert numbers == [1, 1, 1]
        assert third.days["2026-01-02"]["changed_events"] == 0
        assert pipeline.rows() == pipeline.truth(FIRST, "2026-01-02")

    def test_a_filter_on_names_leaves_other_events_alone(self, pipeline: EventsPipeline) -> None:
        pipeline.sync(FIRST)
        pipeline.sandbox.population.replace_events(FIRST, [])
        outcome = pipeline.sync(FIRST, events=["Search"], max_removed_fraction=1.0)
        assert outcome.success, outcome.words
        # Red when `_delete_replaced` ignores the query.
        assert pipeline.rows() == [
            row for row in sorted((n, t) for n, t in _seeded(pipeline, FIRST)) if row[0] != "Search"
        ]
        assert outcome.said["gone_events"] == sum(name == "Search" for name, _ in _seeded(pipeline, FIRST))

    def test_what_is_fetched_is_not_what_the_days_hold(self, pipeline: EventsPipeline) -> None:
        """Red with the rows stored; and if what another load of these days set aside is counted."""
        first, *_ = pipeline.sandbox.population.events(FIRST, milliseconds=True)
        pipeline.sandbox.population.add_events(FIRST, [first, ("Search", {"distinct_id": "timeless"})])
        whole = pipeline.sync(FIRST, "2026-01-02").said
        counts = ("fetched_rows", "rejected_rows", "duplicate_events")
        assert [whole[name] for name in counts] == [202, 1, 1]
        pipeline.sandbox.population.replace_events(FIRST, [first])
        again = pipeline.sync(FIRST, events=[first[0]], where='properties["plan"] == "nobody has it"').said
        assert [again[name] for name in counts] == [0, 0, 0]
        assert again["dagster/partition_row_count"] == 100

    def test_a_filter_expression_removes_nothing(self, pipeline: EventsPipeline) -> None:
        pipeline.sync(FIRST)
        before = pipeline.rows()
        outcome = pipeline.sync(FIRST, where='properties["plan"] == "pro"')
        assert outcome.success, outcome.words
        assert pipeline.rows() == before


def _seeded(pipeline: EventsPipeline, day: str) -> list[tuple[str, str]]:
    return [(name, text) for name, text in Population(events_per_day=100).events(day, milliseconds=True)]


class TestRefusals:
    @pytest.mark.parametrize(
        ("first", "last", "config", "words"),
        [
            ("2026-01-02", FIRST, {}, "from_date 2026-01-02 is after to_date 2026-01-01"),
            (FIRST, "2026-01-02", {"chunk_days": 0}, "chunk_days must be between 1 and 100, not 0"),
            (FIRST, "2026-01-02", {"chunk_days": 101}, "chunk_days must be between 1 and 100, not 101"),
            (FIRST, "2026-01-02", {"events": []}, "events must name at least one event"),
            (FIRST, "2026-01-02", {"where": " "}, "where is empty"),
            (FIRST, "2026-01-02", {"on_quota": "panic"}, "on_quota must be stop or wait"),
        ],
    )
    def test_bad_settings_are_refused_before_the_first_request(
        self, pipeline: EventsPipeline, first: str, last: str, config: dict[str, Any], words: str
    ) -> None:
        outcome = pipeline.sync(first, last, **config)
        assert not outcome.success
        assert words in outcome.words
        assert pipeline.asked() == []

    def test_an_unknown_time_zone_is_refused_in_one_line(
        self, pipeline: EventsPipeline, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MP_TIMEZONE", "Mars/Olympus")
        assert partitions.event_days().timezone == "UTC"
        outcome = pipeline.sync(FIRST)
        assert "MP_TIMEZONE 'Mars/Olympus' is not a known time zone" in outcome.words
        assert pipeline.asked() == []

    def test_a_day_in_the_future_is_refused(self, pipeline: EventsPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(partitions, "today", lambda *_: "2026-01-01")
        assert "2026-01-02 is in the future" in pipeline.sync(FIRST, "2026-01-02").words
        assert pipeline.asked() == []

    def test_partitions_reach_from_the_first_day_to_today(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MP_EVENTS_START_DATE", "2026-01-05")
        monkeypatch.setenv("MP_TIMEZONE", "Pacific/Auckland")
        keys = partitions.event_days().get_partition_keys()
        assert (keys[0], keys[-1]) == ("2026-01-05", partitions.today())


class TestChecks:
    def test_each_check_sees_what_it_is_for(self, pipeline: EventsPipeline) -> None:
        pipeline.sync(FIRST, "2026-01-02")
        pipeline.query("delete from {schema}.events where event_time::date = '2026-01-01' and event_name = 'Search'")
        assert pipeline.sync("2026-01-02").checks["event_days_whole"] is False
        pipeline.sync(FIRST)
        pipeline.query("update {schema}.events set day = '2026-06-01' where event_name = 'Search'")
        assert pipeline.sync(FIRST, "2026-01-02").checks["events_inside_their_days"] is False

    def test_a_repeated_key_is_seen(self, pipeline: EventsPipeline, monkeypatch: pytest.MonkeyPatch) -> None:
        pipeline.sandbox.population.add_events(
            FIRST, [next(iter(pipeline.sandbox.population.events(FIRST, milliseconds=True)))]
        )
        monkeypatch.setattr(same_event, "_delete_surplus", lambda connection, table: None)
        assert pipeline.sync(FIRST).checks["event_keys_unique"] is False
