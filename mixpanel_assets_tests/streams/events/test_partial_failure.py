"""Days of `mixpanel/events` that do not come, or come late: what they cost, who fetches them again, what is reused."""

import contextlib
import datetime
import json
from logging import Logger

import dagster as dg
import pytest

from mixpanel_assets import settings
from mixpanel_assets.client.client import MixpanelClient
from mixpanel_assets.sandbox import Fault
from mixpanel_assets.storage.staging import LocalStaging, Staging
from mixpanel_assets.streams.days import days_between
from mixpanel_assets.streams.events import chunking as event_sync
from mixpanel_assets.streams.events import columns as event_columns
from mixpanel_assets.streams.events import reports as event_reports
from mixpanel_assets.streams.events.assets import EVENTS_KEY
from mixpanel_assets.streams.events.chunking import ChunkOrder, ChunkResult
from mixpanel_assets.streams.events.query import EventsQuery
from mixpanel_assets.streams.events.staged import EventsFolder, RangeResult
from mixpanel_assets_tests.events_pipeline import FIRST, EventsPipeline

# Dagster's own use of its own deprecated name.
pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run is deprecated")

LAST = "2026-01-06"
DAYS = days_between(FIRST, LAST)


class TestShrunkenDays:
    """One answer that lacks most of what is stored of a day that is over may be a fault."""

    @pytest.mark.parametrize("left", [0, 1, 30])
    def test_the_old_rows_stay_and_the_day_is_owed_until_it_is_let_through(
        self, pipeline: EventsPipeline, left: int
    ) -> None:
        """Red without `_refuse_shrunken`; and the second time, when the first emptied what it is compared with."""
        pipeline.sync(FIRST, "2026-01-03")
        old = pipeline.rows()
        served = list(pipeline.sandbox.population.events("2026-01-02", milliseconds=True))[:left]
        pipeline.sandbox.population.replace_events("2026-01-02", served)
        for _ in range(2):
            outcome = pipeline.sync(FIRST, "2026-01-03")
            assert not outcome.success
            assert sorted(outcome.days) == [FIRST, "2026-01-03"]
            assert outcome.said["failed_date_ranges"] == [["2026-01-02", "2026-01-02"]]
            assert f"events of 2026-01-02: {left} came where 100 are stored, which stay" in outcome.words
            assert pipeline.rows() == old
            assert list(event_reports.owed_days(pipeline.instance, EVENTS_KEY)) == ["2026-01-02"]
        assert not pipeline.retry().success
        assert pipeline.rows() == old
        assert pipeline.sync("2026-01-02", max_removed_fraction=1.0).success
        assert pipeline.rows() == sorted(pipeline.truth(FIRST, "2026-01-02", "2026-01-03"))
        assert "nothing to fetch again" in pipeline.retry().words

    def test_all_days_of_a_sync_may_be_refused(self, pipeline: EventsPipeline) -> None:
        """Red when the report wants a day that came."""
        pipeline.sync(FIRST, "2026-01-02")
        old = pipeline.rows()
        pipeline.sandbox.faults = [Fault("export", "status:200", body="\n", times=None)]
        outcome = pipeline.sync(FIRST, "2026-01-02")
        assert (outcome.success, outcome.days, pipeline.rows()) == (False, {}, old)
        assert list(event_reports.owed_days(pipeline.instance, EVENTS_KEY)) == [FIRST, "2026-01-02"]

    def test_rows_that_the_query_could_not_serve_are_not_compared(self, pipeline: EventsPipeline) -> None:
        """Red when all rows of the day count, whatever was asked."""
        pipeline.sync(FIRST)
        assert pipeline.sync(FIRST, events=["Search"]).success
        pipeline.sandbox.population.replace_events(FIRST, [])
        assert not pipeline.sync(FIRST, events=["Search"]).success
        assert pipeline.sync(FIRST, where='properties["plan"] == "pro"').success
        assert len(pipeline.rows()) == 100


class TestPartialFailure:
    def test_days_that_came_are_stored_and_the_others_can_be_fetched_alone(self, pipeline: EventsPipeline) -> None:
        pipeline.sync("2026-01-03")
        old = pipeline.rows()
        pipeline.sandbox.faults = [Fault("export", "status:403", from_date="2026-01-03", times=None)]
        fewer = list(pipeline.sandbox.population.events("2026-01-03", milliseconds=True))[:60]
        pipeline.sandbox.population.replace_events("2026-01-03", fewer)
        outcome = pipeline.sync(FIRST, LAST, chunk_days=2)
        assert not outcome.success
        assert sorted(outcome.days) == [FIRST, "2026-01-02", "2026-01-05", LAST]
        assert outcome.said["failed_date_ranges"] == [["2026-01-03", "2026-01-04"]]
        assert (outcome.said["successful_batches"], outcome.said["failed_batches"]) == (2, 1)
        assert "403" in outcome.said["failures"]
        assert "missing: 2026-01-03 to 2026-01-04" in outcome.words
        # The day that failed keeps its old rows; the one never loaded does not show as materialized.
        assert pipeline.rows() == sorted([*old, *pipeline.truth(FIRST, "2026-01-02", "2026-01-05", LAST)])
        assert "2026-01-04" not in pipeline.materialized()

        pipeline.sandbox.faults = []
        pipeline.sandbox.journal.clear()
        again = pipeline.retry()
        assert again.success, again.words
        assert pipeline.asked() == [("2026-01-03", "2026-01-04", 200)]
        assert sorted(again.days) == ["2026-01-03", "2026-01-04"]
        assert pipeline.rows() == pipeline.truth(*DAYS)
        assert pipeline.materialized() == set(DAYS)
        # Red when `owed_days` does not look at materializations.
        assert "nothing to fetch again" in pipeline.retry().words

    def test_days_are_fetched_again_as_they_were_asked_for(
        self, pipeline: EventsPipeline, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Red with the query of the retry; and with the environment of the retry left out."""
        pipeline.sandbox.faults = [Fault("export", "status:403", times=None)]
        pipeline.sync(FIRST, events=["Search"])
        pipeline.sync("2026-01-02", where='properties["plan"] == "pro"')
        pipeline.sync("2026-01-03", "2026-01-04", exclude_properties=["plan"], hash_properties=["$city"])
        pipeline.sandbox.faults = []
        pipeline.sandbox.journal.clear()
        monkeypatch.setenv("MP_EXCLUDE_PROPERTIES", "$os")
        outcome = pipeline.retry()
        assert outcome.success, outcome.words
        asked = [request.params for request in pipeline.sandbox.journal.requests]
        assert sorted((each["from_date"], each.get("event"), each.get("where")) for each in asked) == [
            (FIRST, '["Search"]', None),
            ("2026-01-02", None, 'properties["plan"] == "pro"'),
            ("2026-01-03", None, None),
        ]
        assert outcome.days[FIRST]["query"] == {
            "events": ["Search"],
            "where": None,
            "kept": {"include": None, "exclude": ["$os"], "hashed": []},
            "source": _source(pipeline),
            "limit": None,
        }
        [(searches, others)] = pipeline.query(
            "select count(*) filter (event_name = 'Search'), count(*) filter (event_name <> 'Search') "
            f"from {{schema}}.events where event_time::date = '{FIRST}'"
        )
        assert (searches > 0, others) == (True, 0)
        kept = "select json_keys(properties), properties ->> '$.\"$city\"' from {schema}.events where event_time::date "
        assert all("$os" not in names for names, _ in pipeline.query(kept + "< '2026-01-03'"))
        of_the_last = pipeline.query(kept + ">= '2026-01-03'")
        assert len(of_the_last) == 200
        assert all({"$os", "plan"}.isdisjoint(names) and len(city or 64 * "0") == 64 for names, city in of_the_last)
        assert "nothing to fetch again" in pipeline.retry().words

    def test_a_day_is_owed_until_all_came_that_was_asked_for(self, pipeline: EventsPipeline) -> None:
        """Red when any materialization of a day settles it: events would be missing, and nobody would know."""
        pipeline.sandbox.faults = [Fault("export", "status:403", times=3)]
        pipeline.sync(FIRST)
        pipeline.sync(FIRST, events=["Search"])
        pipeline.sync("2026-01-02", events=["Search"])
        assert pipeline.sync(FIRST, events=["Checkout"]).success
        owed = event_reports.owed_days(pipeline.instance, EVENTS_KEY)
        searches = EventsQuery(("Search",), source=_source(pipeline))
        assert owed == {FIRST: searches, "2026-01-02": searches}
        assert pipeline.retry().success
        assert event_reports.owed_days(pipeline.instance, EVENTS_KEY) == {FIRST: EventsQuery(source=_source(pipeline))}
        assert pipeline.sync("2026-01-01", events=["Search", "Checkout"], retry_failed_ranges=True).days == {}
        assert pipeline.retry().success
        assert event_reports.owed_days(pipeline.instance, EVENTS_KEY) == {}
        assert [row for row in pipeline.rows() if row not in pipeline.truth(FIRST)] == [
            row for row in pipeline.truth("2026-01-02") if row[0] == "Search"
        ]

    @pytest.mark.parametrize("planned_together", ["true", "false"])
    def test_dagster_shows_what_failed(
        self, pipeline: EventsPipeline, monkeypatch: pytest.MonkeyPatch, planned_together: str
    ) -> None:
        """Red without the planned days in `_note_failed`, in a process of our own (see process_setup.py)."""
        monkeypatch.setenv("DAGSTER_EMIT_PARTITION_SUBSET_IN_PLANNED_EVENTS", planned_together)
        pipeline.sandbox.faults = [Fault("export", "status:403", from_date="2026-01-03", times=None)]
        outcome = pipeline.sync(FIRST, LAST, chunk_days=2)
        planned = dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED
        days_before = 1 if planned_together == "true" else len(DAYS)
        assert len(pipeline.instance.all_logs(outcome.run_id, of_type=planned)) == days_before + 2
        assert pipeline.failed() == {"2026-01-03", "2026-01-04"}
        pipeline.sandbox.faults = []
        assert pipeline.retry().success
        assert pipeline.failed() == set()

    def test_when_nothing_comes_nothing_changes(self, pipeline: EventsPipeline) -> None:
        pipeline.sync(FIRST)
        before = pipeline.rows()
        pipeline.sandbox.faults = [Fault("export", "status:403", times=None)]
        outcome = pipeline.sync(FIRST, "2026-01-02")
        assert not outcome.success
        assert outcome.days == {}
        assert "nothing was stored or removed" in outcome.words
        assert pipeline.rows() == before
        assert pipeline.materialized() == {FIRST}
        assert pipeline.failed() == {FIRST, "2026-01-02"}
        pipeline.sandbox.faults = []
        # Both failed, so both are owed, though the first has an older materialization.
        assert sorted(pipeline.retry().days) == [FIRST, "2026-01-02"]

    def test_a_chunk_that_times_out_is_split(self, pipeline: EventsPipeline) -> None:
        pipeline.sandbox.faults = [Fault("export", "timeout-error", from_date=FIRST, times=2)]
        outcome = pipeline.sync(FIRST, "2026-01-04", chunk_days=4)
        assert outcome.success, outcome.words
        assert [days[:2] for days in pipeline.asked()] == [
            (FIRST, "2026-01-04"),
            (FIRST, "2026-01-02"),
            (FIRST, FIRST),
            ("2026-01-02", "2026-01-02"),
            ("2026-01-03", "2026-01-04"),
        ]
        assert pipeline.rows() == pipeline.truth(*DAYS[:4])
        assert (outcome.said["successful_batches"], outcome.said["failed_batches"]) == (1, 0)

    @pytest.mark.parametrize("status", ["status:504", "timeout-error"])
    def test_a_single_day_that_times_out_is_asked_for_again(self, pipeline: EventsPipeline, status: str) -> None:
        pipeline.sandbox.faults = [Fault("export", status)]
        assert pipeline.sync(FIRST).success
        assert [request[2] for request in pipeline.asked()] == [int(status[-3:]) if ":" in status else 400, 200]

    def test_what_a_run_left_unstored_is_taken_over(self, pipeline: EventsPipeline) -> None:
        """A run that is cancelled, or cannot write, has fetched for nothing only if the next one asks again."""
        (pipeline.home / "mixpanel_data.duckdb").write_bytes(b"no database at all" * 1000)
        pipeline.sandbox.faults = [Fault("export", "status:403", from_date="2026-01-03", times=None)]
        ended = _ended_run(pipeline)
        (pipeline.home / "mixpanel_data.duckdb").unlink()
        _stage(pipeline, ended, FIRST, "2026-01-02", datetime.datetime.now(datetime.timezone.utc))
        _stage(pipeline, ended, "2026-01-05", LAST, datetime.datetime(2026, 1, 6, tzinfo=datetime.timezone.utc))
        pipeline.sandbox.faults = []
        outcome = pipeline.sync(FIRST, LAST, chunk_days=2)
        assert outcome.success, outcome.words
        # The second was fetched before its day was over, so it is asked for again. Red without `_is_fresh`.
        assert sorted(days[:2] for days in pipeline.asked()) == [("2026-01-03", "2026-01-04"), ("2026-01-05", LAST)]
        assert pipeline.rows() == pipeline.truth(*DAYS)
        assert not list((pipeline.home / "staging" / "events" / outcome.run_id).glob("*"))

    def test_what_another_project_left_is_not_taken_over(
        self, pipeline: EventsPipeline, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Red when the query does not say whose events: one project's events would be stored as another's."""
        with monkeypatch.context() as broken:
            broken.setattr(event_sync, "settle", _interrupted)
            _run_that_dies(pipeline, {}, {"dagster/partition": FIRST})
        _move_to_project(pipeline, "43", monkeypatch)
        pipeline.sandbox.population.replace_events(FIRST, [])
        outcome = pipeline.sync(FIRST)
        assert outcome.success, outcome.words
        assert pipeline.asked() == [(FIRST, FIRST, 200)] * 2
        assert pipeline.rows() == []

    def test_what_was_fetched_before_its_days_were_loaded_is_not_taken_over(
        self, pipeline: EventsPipeline, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Red without `loaded_at`: the sync would bring nothing new though it was asked to."""
        with monkeypatch.context() as broken:
            broken.setattr(event_sync, "settle", _interrupted)
            _run_that_dies(pipeline, {}, {"dagster/partition": FIRST})
        assert pipeline.sync(FIRST, "2026-01-02").success
        pipeline.sandbox.population.replace_events(FIRST, [])
        pipeline.sandbox.journal.clear()
        assert pipeline.sync(FIRST, max_removed_fraction=1.0).success
        assert pipeline.asked() == [(FIRST, FIRST, 200)]
        assert pipeline.rows() == pipeline.truth("2026-01-02")

    def test_a_run_that_ends_late_leaves_what_a_later_one_loaded(
        self, pipeline: EventsPipeline, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Red when what is stored last stays, whenever it was asked for."""
        with monkeypatch.context() as broken:
            broken.setattr(event_sync, "settle", _interrupted)
            crashed = _run_that_dies(pipeline, {}, {"dagster/partition": FIRST})
        pipeline.sandbox.population.add_events(FIRST, [("Late", {"distinct_id": "a", "time": 1_767_268_800_000})])
        assert pipeline.sync(FIRST, "2026-01-02").success
        outcome = pipeline.reexecute(crashed)
        assert outcome.success, outcome.words
        assert f"{FIRST} to {FIRST}: left as stored by a sync that asked for these days later" in outcome.words
        assert pipeline.rows() == pipeline.truth(FIRST, "2026-01-02")
        said = [outcome.said[f"{what}_events"] for what in ("new", "changed", "gone")]
        assert (outcome.said["dagster/partition_row_count"], said) == (101, [0, 0, 0])

    def test_days_that_another_project_owes_are_not_fetched(
        self, pipeline: EventsPipeline, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Red when `owed_days` is not told whose days."""
        pipeline.sandbox.faults = [Fault("export", "status:403", times=None)]
        pipeline.sync(FIRST, "2026-01-02")
        before = str(pipeline.sandbox.project_id)
        _move_to_project(pipeline, "43", monkeypatch)
        assert "nothing to fetch again" in pipeline.retry().words
        pipeline.sync(FIRST)
        _move_to_project(pipeline, before, monkeypatch)
        pipeline.sync(FIRST)
        pipeline.sandbox.faults = []
        _move_to_project(pipeline, "43", monkeypatch)
        assert list(pipeline.retry().days) == [FIRST]
        _move_to_project(pipeline, before, monkeypatch)
        # What 43 loaded settles nothing here. Red when `covers` does not compare sources.
        assert list(pipeline.retry().days) == [FIRST, "2026-01-02"]

    def test_a_run_is_not_executed_again_on_another_project(
        self, pipeline: EventsPipeline, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Red without `_refuse_other`."""
        with monkeypatch.context() as broken:
            broken.setattr(event_sync, "fetch_chunk", _interrupted)
            crashed = _run_that_dies(pipeline, {}, {"dagster/partition": FIRST})
        was = _source(pipeline)
        _move_to_project(pipeline, "43", monkeypatch)
        outcome = pipeline.reexecute(crashed)
        assert not outcome.success
        assert f"the sync is of {was}, and the environment names project 43 at " in outcome.words
        assert pipeline.asked() == []

    def test_a_folder_that_vanishes_meanwhile_is_passed_over(self, pipeline: EventsPipeline) -> None:
        """Red when the folders of other runs are looked at: those drop them when they have stored."""
        ended = _ended_run(pipeline)
        folders = pipeline.home / "staging" / "events"
        folders.mkdir(parents=True)
        # As good as gone: a name without a folder.
        (folders / ended).symlink_to(pipeline.home / "gone")
        outcome = pipeline.sync(FIRST)
        assert outcome.success, outcome.words

    def test_a_staged_file_that_cannot_be_deleted_fails_no_sync(self, pipeline: EventsPipeline) -> None:
        now = datetime.datetime.now(datetime.timezone.utc)
        result = _stage(pipeline, "run", FIRST, FIRST, now)
        folder = EventsFolder(LocalStaging(pipeline.home / "staging"), "run")
        # Not deleted as a file is, whoever asks, on any system.
        folder.rejected_file(result).mkdir()
        folder.drop(result)
        assert [file.name for file in folder.path.iterdir()] == [folder.rejected_file(result).name]

    def test_what_a_version_before_left_is_fetched_again(self, pipeline: EventsPipeline) -> None:
        ended = _ended_run(pipeline)
        _stage(pipeline, ended, FIRST, FIRST, datetime.datetime.now(datetime.timezone.utc))
        folder = pipeline.home / "staging" / "events" / ended
        (folder / f"{FIRST}_{FIRST}.parquet").rename(folder / f"{FIRST}_{FIRST}.jsonl")
        outcome = pipeline.sync(FIRST)
        assert outcome.success, outcome.words
        assert pipeline.asked() == [(FIRST, FIRST, 200)]
        assert pipeline.rows() == pipeline.truth(FIRST)

    def test_a_crash_and_reexecution_never_end_green_with_days_missing(
        self, pipeline: EventsPipeline, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Dagster drops mapped steps that never started (dagster#20925): the collector must notice."""
        fetch = event_sync.fetch_chunk

        def killed(client: MixpanelClient, staging: Staging, order: ChunkOrder, log: Logger) -> ChunkResult:
            if order.index == 1:
                raise KeyboardInterrupt
            return fetch(client, staging, order, log)

        monkeypatch.setattr(event_sync, "fetch_chunk", killed)
        config = {
            "ops": {"mixpanel__events": {"config": {"chunk_days": 2}}},
            "execution": {"config": {"max_concurrent": 1}},
        }
        days = {"dagster/asset_partition_range_start": FIRST, "dagster/asset_partition_range_end": LAST}
        crashed = _run_that_dies(pipeline, config, days)
        assert pipeline.materialized() == set()
        monkeypatch.setattr(event_sync, "fetch_chunk", fetch)
        outcome = pipeline.reexecute(crashed)
        missing = set(DAYS) - pipeline.materialized()
        # Red when `settle` only passes on what it was told.
        assert outcome.success == (not missing), outcome.words
        assert sorted(pipeline.rows()) == pipeline.truth(*sorted(pipeline.materialized()))


def _interrupted(*arguments: object) -> object:
    raise KeyboardInterrupt


def _ended_run(pipeline: EventsPipeline) -> str:
    ended = pipeline.instance.create_run_for_job(dg.JobDefinition(graph_def=dg.GraphDefinition("g"), name="x"))
    pipeline.instance.report_run_canceled(ended)
    return ended.run_id


def _run_that_dies(pipeline: EventsPipeline, config: dict[str, object], tags: dict[str, str]) -> str:
    with contextlib.suppress(KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
        pipeline.run("sync_recent_events", config, tags=tags)
    [run] = pipeline.instance.get_runs(limit=1)
    if not run.is_finished:
        pipeline.instance.report_run_failed(run)
    return run.run_id


def _source(pipeline: EventsPipeline) -> str:
    return settings.project().source(pipeline.sandbox.environment["MP_EXPORT_URL"])


def _move_to_project(pipeline: EventsPipeline, number: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same host and DAGSTER_HOME, another project and DuckDB file."""
    pipeline.sandbox.project_id = number
    monkeypatch.setenv("MP_PROJECT_ID", number)
    (pipeline.home / "mixpanel_data.duckdb").unlink(missing_ok=True)


def _stage(pipeline: EventsPipeline, run: str, first: str, last: str, asked_at: datetime.datetime) -> RangeResult:
    folder = EventsFolder(LocalStaging(pipeline.home / "staging"), run)
    lines = [
        f'{{"event":{json.dumps(name)},"properties":{text}}}\n'
        for day in days_between(first, last)
        for name, text in pipeline.sandbox.population.events(day, milliseconds=True)
    ]
    with folder.new_file() as (file, stream), folder.new_name() as columns:
        stream.write("".join(lines).encode())
        stream.close()
        assert event_columns.write_columns(file, len(lines), columns, "events")
        query = EventsQuery(source=_source(pipeline))
        result = RangeResult(first, last, run, query, lines=len(lines), asked_at=asked_at)
        return folder.sign(folder.place(columns, result, ()))
