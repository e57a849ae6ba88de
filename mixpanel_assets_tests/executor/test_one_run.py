"""What one run does, with a real instance."""

import gc
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.execution.api import execute_run_iterator

from mixpanel_assets.executor import step_threads
from mixpanel_assets_tests.executor import toy_runs
from mixpanel_assets_tests.executor.running import config, held, run, wait_until, words
from mixpanel_assets_tests.executor.toy_runs import LIMIT, journal, most_in_flight

pytestmark = pytest.mark.process


def turn_away_from(instance: dg.DagsterInstance, lines: Path, run_config: dict[str, Any]) -> None:
    """Start a run, and leave it once its first pages are under way."""
    record = instance.create_run_for_job(toy_runs.pages_job, run_config=run_config)
    events = execute_run_iterator(dg.reconstructable(toy_runs.pages_job), record, instance)
    assert isinstance(events, Generator)
    for event in events:
        if event.is_step_start and str(event.step_key).startswith("page"):
            break
    wait_until(lambda: len(words(lines, "begin")) == LIMIT, "the pages that had been started")
    events.close()


class TestOneRun:
    def test_collects_in_the_order_of_the_plan(self, instance: dg.DagsterInstance, lines: Path) -> None:
        assert run(toy_runs.pages_job, instance, run_config=config(8)).success
        assert words(lines, "collect")[0]["pages"] == list(range(8))

    def test_fills_the_pool_and_no_more(self, instance: dg.DagsterInstance, lines: Path) -> None:
        # Red with one thread (1 in flight).
        assert run(toy_runs.pages_job, instance, run_config=config(9, 0.1, max_concurrent=10)).success
        assert most_in_flight(journal(lines)) == LIMIT
        assert held(instance) == []

    def test_one_step_at_a_time(self, instance: dg.DagsterInstance, lines: Path) -> None:
        # Red when max_concurrent is not handed to ActiveExecution.
        assert run(toy_runs.pages_job, instance, run_config=config(4, max_concurrent=1)).success
        assert most_in_flight(journal(lines)) == 1

    def test_steps_without_a_limit_fill_the_threads(self, instance: dg.DagsterInstance, lines: Path) -> None:
        pages = {"plan": {"config": {"count": 12}}}
        execution = {"config": {"max_concurrent": 4}}
        assert run(toy_runs.free_pages_job, instance, run_config={"ops": pages, "execution": execution}).success
        assert most_in_flight(journal(lines)) == 4

    def test_the_collector_gets_its_objects_back(self, instance: dg.DagsterInstance, lines: Path) -> None:
        """Red when a run leaves what imports made to nobody, or takes it from a process that had set it aside."""
        record = instance.create_run_for_job(toy_runs.pages_job, run_config=config(2))
        events = execute_run_iterator(dg.reconstructable(toy_runs.pages_job), record, instance)
        during = [gc.get_freeze_count() for event in events if event.is_step_success]
        assert min(during) > 10_000
        assert gc.get_freeze_count() == 0
        gc.freeze()
        try:
            assert run(toy_runs.pages_job, instance, run_config=config(2)).success
            assert gc.get_freeze_count() > 10_000
        finally:
            gc.unfreeze()

    def test_refuses_less_than_one_step(self, instance: dg.DagsterInstance) -> None:
        with pytest.raises(dg.DagsterInvariantViolationError, match="max_concurrent is 0; it must be 1 or more"):
            run(toy_runs.pages_job, instance, run_config=config(max_concurrent=0), raise_on_error=True)

    def test_retries_hooks_resources_and_context_variables(self, instance: dg.DagsterInstance, lines: Path) -> None:
        toy_runs.colour.set("blue")
        result = run(toy_runs.features_job, instance)
        assert result.success
        tries = [(line["index"], line["attempt"]) for line in words(lines, "try")]
        assert sorted(tries) == [(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (4, 0), (5, 0)]
        assert len(words(lines, "hook")) == 16  # two plans, six pages each, two collectors
        assert len(words(lines, "resource up")) == len(words(lines, "resource down")) == 1
        assert words(lines, "words")[0]["words"] == ["blue"] * 6  # red without copy_context: "none"
        captures = [event for event in result.all_events if event.event_type == dg.DagsterEventType.LOGS_CAPTURED]
        assert len(captures) == 1

    def test_failures_abandon_and_absent_outputs_skip(self, instance: dg.DagsterInstance, lines: Path) -> None:
        result = run(toy_runs.broken_job, instance)
        assert not result.success
        assert not words(lines, "collect")
        assert not words(lines, "never")
        assert len(words(lines, "fetched")) == 5  # a failed page costs only itself
        assert [event.step_key for event in result.get_step_skipped_events()] == ["after_nothing"]

    def test_reexecution_from_failure_runs_what_is_missing(
        self, instance: dg.DagsterInstance, lines: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        failed = run(toy_runs.broken_job, instance)
        monkeypatch.setenv("TOY_FIXED", "1")
        options = dg.ReexecutionOptions.from_failure(failed.run_id, instance)
        assert run(toy_runs.broken_job, instance, reexecution_options=options).success
        assert [line["index"] for line in words(lines, "fetched")][5:] == [1]
        assert words(lines, "collect")[0]["pages"] == list(range(6))

    def test_step_selection(self, instance: dg.DagsterInstance, lines: Path) -> None:
        failed = run(toy_runs.broken_job, instance)
        options = dg.ReexecutionOptions(failed.run_id, step_selection=["fails_unless_fixed[p003]"])
        assert run(toy_runs.broken_job, instance, reexecution_options=options).success
        assert [line["index"] for line in words(lines, "fetched")][5:] == [3]

    def test_raises_the_error_of_a_step_when_asked(self, instance: dg.DagsterInstance) -> None:
        with pytest.raises(ValueError, match="page 1 is broken"):
            run(toy_runs.broken_job, instance, raise_on_error=True)

    def test_a_caller_that_turns_away_ends_the_run(self, instance: dg.DagsterInstance, lines: Path) -> None:
        # Red without the stop and the wait in StepThreads.run: no page has ended. The pages take a minute, so the
        # caller hears of their beginning while they run.
        turn_away_from(instance, lines, config(9, 60))
        assert len(words(lines, "end")) == LIMIT
        assert held(instance) == []
        assert list((Path(instance.root_directory) / "run_locks").glob("*.lock")) == []

    def test_what_is_under_way_after_the_end_still_counts(
        self, instance: dg.DagsterInstance, lines: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Red when the slots of a run that was left are free before its last pages have ended: six in flight."""
        monkeypatch.setattr(step_threads, "GRACE_SECONDS", 0.1)
        turn_away_from(instance, lines, config(9, 3, heeds_stop=False))
        assert words(lines, "end") == []
        assert run(toy_runs.pages_job, instance, run_config=config(6, 0.1)).success
        assert most_in_flight(journal(lines)) == LIMIT
        run_locks = Path(instance.root_directory) / "run_locks"
        wait_until(lambda: not held(instance) and not [*run_locks.glob("*.lock")], "the slots and the lock")

    def test_two_runs_in_one_process(self, instance: dg.DagsterInstance, lines: Path) -> None:
        results: list[bool] = []

        def one_run() -> None:
            results.append(run(toy_runs.pages_job, instance, run_config=config(6, 0.3)).success)

        threads = [threading.Thread(target=one_run) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [True, True]
        assert most_in_flight(journal(lines)) == LIMIT
