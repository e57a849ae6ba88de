"""A run's events on their way to the disk."""

import threading
import time
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.events import StepMaterializationData

from mixpanel_assets.executor.event_log import RunEventLog, exclusively, flush, run_instance
from mixpanel_assets_tests.executor import toy_runs
from mixpanel_assets_tests.executor.running import PATIENCE_SECONDS, config, run, start, wait_until, words
from mixpanel_assets_tests.executor.toy_runs import LIMIT, POOL

pytestmark = pytest.mark.process


class TestEventLog:
    def test_news_reaches_the_disk_while_steps_run(self, home: Path, instance: dg.DagsterInstance) -> None:
        # Red without the thread that writes in the background: nothing to see for the pages' minute.
        process = start(toy_runs.pages_job, home, config(9, 60))

        def started() -> int:
            return sum(
                len(instance.all_logs(record.run_id, of_type=dg.DagsterEventType.STEP_START))
                for record in instance.get_runs()
            )

        try:
            wait_until(lambda: started() == 1 + LIMIT, "the plan's and the first pages' beginning")
        finally:
            process.kill()
            process.wait()

    def test_the_disk_has_every_page_before_the_collector_begins(
        self, instance: dg.DagsterInstance, lines: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Red without the flush in _start_ready_steps: with a slow writer only the plan's success is there.
        monkeypatch.setattr("mixpanel_assets.executor.event_log.WRITE_AFTER_SECONDS", 30.0)
        result = run(toy_runs.pages_job, instance, run_config=config(5))
        assert words(lines, "collect")[0]["successes_on_disk"] == 6
        assert toy_runs.successes_on_disk(instance, result.run_id) == 7

    def test_events_are_stored_in_order_and_once(self, instance: dg.DagsterInstance) -> None:
        result = run(toy_runs.pages_job, instance, run_config=config(5))
        stored = [e.dagster_event for e in instance.all_logs(result.run_id) if e.dagster_event and e.step_key]
        yielded = [event for event in result.all_events if event.step_key]
        for key in {event.step_key for event in yielded}:
            own = [event.event_type for event in yielded if event.step_key == key]
            assert [event.event_type for event in stored if event.step_key == key] == own

    def test_what_is_stored_is_found_at_once(self, instance: dg.DagsterInstance) -> None:
        # Red when reading the index of all runs does not write what waits for it.
        assert run(toy_runs.reads_what_it_stored_job, instance).success

    def test_writing_and_taking_slots_do_not_wait_for_each_other(self, instance: dg.DagsterInstance) -> None:
        # Red without `is_held_here`: the one has the index and wants to write, the other writes and wants the index.
        record = instance.create_run_for_job(toy_runs.pages_job)
        ended = []
        with run_instance(instance, record.run_id) as own:

            def store() -> None:
                for day in range(100):
                    materialization = dg.AssetMaterialization("days", partition=str(day))
                    event = dg.DagsterEvent(
                        dg.DagsterEventType.ASSET_MATERIALIZATION.value,
                        record.job_name,
                        event_specific_data=StepMaterializationData(materialization),
                    )
                    own.report_dagster_event(event, record.run_id)
                    time.sleep(0.005)
                ended.append("stored")

            def write() -> None:
                while "stored" not in ended:
                    flush(own)
                ended.append("written")

            def take() -> None:
                while "stored" not in ended:
                    with exclusively(own):
                        time.sleep(0.02)  # Time for the writer to begin, and for the next event to come.
                        own.event_log_storage.get_concurrency_info(POOL)
                ended.append("taken")

            threads = [threading.Thread(target=target, daemon=True) for target in (store, write, take)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(PATIENCE_SECONDS)
            assert sorted(ended) == ["stored", "taken", "written"]
            assert len(own.get_materialized_partitions(dg.AssetKey("days"))) == 100

    def test_a_failing_disk_fails_the_run(self, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
        # Red when flush swallows what SQLite raises.
        def refuse(self: RunEventLog, event: object) -> dict[str, object]:
            return {"no such column": 1}

        monkeypatch.setattr(RunEventLog, "_event_to_row", refuse)
        with pytest.raises(Exception, match="event_logs"):
            run(toy_runs.pages_job, instance, run_config=config(2), raise_on_error=True)
