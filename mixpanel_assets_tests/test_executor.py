"""The threaded executor with real instances: what a run does, what several runs share, and how runs end."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy
from dagster._core.events import StepMaterializationData
from dagster._core.execution.api import execute_run_iterator
from dagster._core.storage.event_log import SqliteEventLogStorage

from mixpanel_assets.executor.event_log import RunEventLog, exclusively, flush, run_instance
from mixpanel_assets.executor.run_locks import HOST, RunLocks, bury_dead_runs
from mixpanel_assets.executor.slots import PoolSlots
from mixpanel_assets.stopping import stop_requested
from mixpanel_assets_tests import toy_runs
from mixpanel_assets_tests.toy_runs import LIMIT, POOL, journal, most_in_flight

PATIENCE_SECONDS = 60  # for another process; only ever waited for when something is broken


@pytest.fixture
def lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "journal.jsonl"
    monkeypatch.setenv("TOY_JOURNAL", str(path))
    return path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "home"
    path.mkdir()
    return path


@pytest.fixture
def instance(home: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        yield instance


def config(pages: int = 6, seconds: float = 0.05, *, heeds_stop: bool = True, **execution: Any) -> dict[str, Any]:
    ops = {"plan": {"config": {"count": pages}}, "page": {"config": {"seconds": seconds, "heeds_stop": heeds_stop}}}
    return {"ops": ops, "execution": {"config": execution}}


def run(job: dg.JobDefinition, instance: dg.DagsterInstance, **options: Any) -> dg.JobExecutionResult:
    return dg.execute_job(dg.reconstructable(getattr(toy_runs, job.name)), instance=instance, **options)


def start(job: dg.JobDefinition, home: Path, run_config: dict[str, Any] | None = None) -> subprocess.Popen[bytes]:
    """Run a job in a process of its own."""
    command = [sys.executable, "-m", "mixpanel_assets_tests.toy_runs", job.name, str(home)]
    if run_config:
        command.append(json.dumps(run_config))
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def wait_until(happened: Any, what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.02)


def held(instance: dg.DagsterInstance, pool: str = POOL) -> list[str]:
    return [slot.step_key for slot in instance.event_log_storage.get_concurrency_info(pool).claimed_slots]


def messages(instance: dg.DagsterInstance, run_id: str) -> str:
    return "\n".join(entry.message for entry in instance.all_logs(run_id))


def words(path: Path, word: str) -> list[dict[str, Any]]:
    return [line for line in journal(path) if line["word"] == word]


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
        job = dg.reconstructable(toy_runs.pages_job)
        record = instance.create_run_for_job(toy_runs.pages_job, run_config=config(9, 60))
        events = execute_run_iterator(job, record, instance)
        assert isinstance(events, Generator)
        for event in events:
            if event.is_step_start and str(event.step_key).startswith("page"):
                break
        wait_until(lambda: len(words(lines, "begin")) == LIMIT, "the pages that had been started")
        events.close()
        assert len(words(lines, "end")) == LIMIT
        assert held(instance) == []
        assert list((Path(instance.root_directory) / "run_locks").glob("*.lock")) == []

    def test_two_runs_in_one_process(self, instance: dg.DagsterInstance, lines: Path) -> None:
        results: list[bool] = []

        def one_run() -> None:
            results.append(run(toy_runs.pages_job, instance, run_config=config(6)).success)

        threads = [threading.Thread(target=one_run) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [True, True]
        assert most_in_flight(journal(lines)) == LIMIT


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


class TestPools:
    @pytest.mark.parametrize("persistent", [True, False])
    def test_the_limit_holds_without_configuration(self, home: Path, lines: Path, persistent: bool) -> None:  # noqa: FBT001 a parameter of the test
        # An instance in memory counts no slots: red without _is_full, 10 in flight.
        local, in_memory = dg.DagsterInstance.local_temp, dg.DagsterInstance.ephemeral
        with local(str(home)) if persistent else in_memory() as fresh:
            assert run(toy_runs.pages_job, fresh, run_config=config(9, 0.1, max_concurrent=10)).success
        assert most_in_flight(journal(lines)) == LIMIT

    def test_another_storage_keeps_its_own_ways(self, home: Path, lines: Path) -> None:
        # One file for all runs, as in Postgres: no RunEventLog, Dagster's own claims, our waiting.
        log = {"module": "dagster._core.storage.event_log", "class": "ConsolidatedSqliteEventLogStorage"}
        overrides = {"event_log_storage": {**log, "config": {"base_dir": str(home)}}}
        with dg.DagsterInstance.local_temp(str(home), overrides=overrides) as instance:
            instance.event_log_storage.set_concurrency_slots(POOL, 2)
            assert run(toy_runs.pages_job, instance, run_config=config(6, 0.1)).success
            assert held(instance) == []
        assert most_in_flight(journal(lines)) == 2

    def test_who_cannot_use_a_slot_does_not_wait_for_it(self, instance: dg.DagsterInstance) -> None:
        instance.event_log_storage.set_concurrency_slots(POOL, 1)
        other, ours = (instance.create_run_for_job(toy_runs.pages_job) for _ in range(2))
        instance.event_log_storage.claim_concurrency_slot(POOL, other.run_id, "theirs")
        with PoolSlots(instance, ours, {}, {}) as slots:
            assert not slots.claim(POOL, "mine")
            assert slots.has_pending_claims()
            slots.withdraw()
            assert not slots.has_pending_claims()
            pending = instance.event_log_storage.get_concurrency_info(POOL).pending_steps
            assert [row.step_key for row in pending] == ["theirs"]
            instance.event_log_storage.free_concurrency_slots_for_run(other.run_id)
            assert slots.claim(POOL, "another of mine")  # red when the wish stays: "mine" would come first for ever

    def test_writes_its_limit_beside_the_default(self, home: Path) -> None:
        # Red without _write_own_limits: the default of 7, then in the row.
        overrides = {"concurrency": {"pools": {"default_limit": 7}}}
        with dg.DagsterInstance.local_temp(str(home), overrides=overrides) as instance:
            run(toy_runs.pages_job, instance)
            limits = {row.name: (row.limit, row.from_default) for row in instance.event_log_storage.get_pool_limits()}
        assert limits == {POOL: (LIMIT, False)}

    def test_a_limit_set_by_a_person_stays(self, instance: dg.DagsterInstance, lines: Path) -> None:
        instance.event_log_storage.set_concurrency_slots(POOL, 2)
        assert run(toy_runs.pages_job, instance, run_config=config(8, 0.1)).success
        assert most_in_flight(journal(lines)) == 2

    def test_a_larger_limit_set_by_a_person_does_not_lift_ours(self, instance: dg.DagsterInstance, lines: Path) -> None:
        # Red without _is_full.
        instance.event_log_storage.set_concurrency_slots(POOL, 9)
        assert run(toy_runs.pages_job, instance, run_config=config(9, 0.1)).success
        assert most_in_flight(journal(lines)) == LIMIT

    def test_two_processes_never_exceed_the_limit(self, home: Path, instance: dg.DagsterInstance, lines: Path) -> None:
        instance.event_log_storage.set_concurrency_slots(POOL, 2)
        runs = [start(toy_runs.pages_job, home, config(25, 0.1)) for _ in range(2)]
        assert [process.wait(PATIENCE_SECONDS) for process in runs] == [0, 0]
        assert len(words(lines, "begin")) == 50
        assert most_in_flight(journal(lines)) == 2

    def test_a_slot_is_claimed_once(self, home: Path, instance: dg.DagsterInstance) -> None:
        # Two runs claim the only slot, with a pause between Dagster's look for a free slot and its taking. Red with
        # BEGIN instead of BEGIN IMMEDIATE (locked), and with Dagster's plain event log (both get the slot).
        instance.event_log_storage.set_concurrency_slots(POOL, 1)
        storages = [RunEventLog(f"{home}/history/runs", name) for name in ("one", "two")]
        claims: list[bool] = []

        def claim(name: str, storage: SqliteEventLogStorage) -> None:
            storage.add_pending_step(POOL, name, "step", should_assign=True)
            claims.append(storage.claim_concurrency_slot(POOL, name, "step").is_claimed)

        def pause(*arguments: Any) -> None:
            if "FROM concurrency_slots" in arguments[2]:
                time.sleep(0.3)

        sqlalchemy.event.listen(sqlalchemy.Engine, "after_cursor_execute", pause)
        try:
            threads = [threading.Thread(target=claim, args=(f"run {i}", s)) for i, s in enumerate(storages)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            sqlalchemy.event.remove(sqlalchemy.Engine, "after_cursor_execute", pause)
            for storage in storages:
                storage.close()
        assert sorted(claims) == [False, True]

    def test_a_limit_lowered_during_a_run_holds_from_then_on(
        self, home: Path, instance: dg.DagsterInstance, lines: Path
    ) -> None:
        # Red when a slot that is to go is handed on: the run keeps all that it has to its end.
        process = start(toy_runs.pages_job, home, config(12, 0.5))
        wait_until(lambda: len(words(lines, "begin")) == LIMIT, "the first pages")
        instance.event_log_storage.set_concurrency_slots(POOL, 1)
        assert process.wait(PATIENCE_SECONDS) == 0
        assert most_in_flight([line for line in journal(lines) if line.get("index", 0) >= LIMIT]) == 1

    @pytest.mark.parametrize("slots", [1, LIMIT])
    def test_runs_take_turns(self, home: Path, instance: dg.DagsterInstance, lines: Path, slots: int) -> None:
        # Red when a run may wait with all its pages at once, or hands its slots on from page to page while another
        # waits: the short run ends after the long one.
        instance.event_log_storage.set_concurrency_slots(POOL, slots)
        long = start(toy_runs.pages_job, home, config(20 * slots, 0.3))
        wait_until(lambda: len(words(lines, "begin")) > 2, "the long run's first pages")
        short = start(toy_runs.pages_job, home, config(3, 0.05))
        assert [long.wait(PATIENCE_SECONDS), short.wait(PATIENCE_SECONDS)] == [0, 0]
        assert [len(line["pages"]) for line in words(lines, "collect")] == [3, 20 * slots]

    def test_waits_without_spinning_and_takes_a_freed_slot(self, instance: dg.DagsterInstance, lines: Path) -> None:
        storage = instance.event_log_storage
        storage.set_concurrency_slots(POOL, 1)
        blocker = instance.create_run_for_job(toy_runs.pages_job)  # alive as far as anybody can tell
        storage.claim_concurrency_slot(POOL, blocker.run_id, "other")
        used = []

        def free_later() -> None:
            time.sleep(1)
            before = time.process_time()
            time.sleep(2)
            used.append(time.process_time() - before)
            assert not words(lines, "begin")
            note_at.append(time.time())
            storage.free_concurrency_slots_for_run(blocker.run_id)

        note_at: list[float] = []
        thread = threading.Thread(target=free_later)
        thread.start()
        assert run(toy_runs.pages_job, instance, run_config=config(1)).success
        thread.join()
        assert used[0] < 0.5  # CPU seconds in 2; measured 0.05, and Dagster's own loop uses all of them
        # Measured 0.1 s; Dagster's own pause is over a second by then.
        assert words(lines, "begin")[0]["at"] - note_at[0] < 0.8

    def test_a_slot_set_aside_for_a_step_that_does_not_look(
        self, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Red without _return_what_is_not_fetched: waits for ever.
        monkeypatch.setattr("mixpanel_assets.executor.slots.SET_ASIDE_SECONDS", 0.5)
        instance.event_log_storage.set_concurrency_slots(POOL, 1)
        sleeper = instance.create_run_for_job(toy_runs.pages_job)
        assert isinstance(instance.event_log_storage, SqliteEventLogStorage)
        instance.event_log_storage.add_pending_step(POOL, sleeper.run_id, "asleep", should_assign=True)
        assert run(toy_runs.pages_job, instance, run_config=config(2)).success

    @pytest.mark.parametrize("known", [True, False])
    def test_slots_of_finished_and_unknown_runs(self, instance: dg.DagsterInstance, known: bool) -> None:  # noqa: FBT001 a parameter of the test
        # Red without _free_what_is_over: waits for ever.
        instance.event_log_storage.set_concurrency_slots(POOL, 1)
        run_id = "gone"
        if known:
            over = instance.create_run_for_job(toy_runs.pages_job)
            instance.report_run_failed(over)
            run_id = over.run_id
        instance.event_log_storage.claim_concurrency_slot(POOL, run_id, "left")
        instance.event_log_storage.claim_concurrency_slot(POOL, run_id, "queued")
        assert run(toy_runs.pages_job, instance, run_config=config(2)).success


class TestDeadRuns:
    def test_a_killed_run_blocks_nobody(self, home: Path, instance: dg.DagsterInstance, lines: Path) -> None:
        # Red without bury_the_dead: waits for ever.
        instance.event_log_storage.set_concurrency_slots(POOL, 1)
        holder = start(toy_runs.pages_job, home, config(3, 60))
        wait_until(lambda: len(words(lines, "begin")) == 1, "the holder's page")
        waiter = start(toy_runs.pages_job, home, config(3, 60))
        pending = instance.event_log_storage.get_concurrency_info
        wait_until(lambda: len({row.run_id for row in pending(POOL).pending_steps}) == 2, "the waiter's claim")
        for process in (waiter, holder):
            process.kill()
            process.wait()

        result = run(toy_runs.pages_job, instance, run_config=config(2))
        assert result.success
        others = [record for record in instance.get_runs() if record.run_id != result.run_id]
        assert [record.status for record in others] == [dg.DagsterRunStatus.FAILURE] * 2
        assert "ended without a word" in messages(instance, others[0].run_id)
        assert pending(POOL).claimed_slots == []
        assert pending(POOL).pending_steps == []

    def test_a_living_run_and_one_of_another_host_are_left_alone(
        self, home: Path, instance: dg.DagsterInstance
    ) -> None:
        locks = RunLocks(home / "run_locks")
        here, elsewhere, dead = (instance.create_run_for_job(toy_runs.pages_job) for _ in range(3))
        for record in (here, elsewhere, dead):
            instance.report_dagster_event(dg.DagsterEvent("PIPELINE_START", "pages_job"), record.run_id)
        (home / "run_locks" / f"{elsewhere.run_id}.otherhost.lock").touch()
        (home / "run_locks" / f"{dead.run_id}.{HOST}.lock").touch()
        with locks.alive(here.run_id):
            assert bury_dead_runs(instance) == [dead.run_id]
        statuses = [instance.get_run_by_id(record.run_id).status.value for record in (here, elsewhere, dead)]  # type: ignore[union-attr]
        assert statuses == ["STARTED", "STARTED", "FAILURE"]
        assert [path.name for path in (home / "run_locks").glob("*.lock")] == [f"{elsewhere.run_id}.otherhost.lock"]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows ends a process without a signal it could heed")
class TestCancel:
    def test_a_signal_cancels_the_run(self, home: Path, instance: dg.DagsterInstance, lines: Path) -> None:
        process = start(toy_runs.pages_job, home, config(9, 60))
        wait_until(lambda: len(words(lines, "begin")) == LIMIT, "the first pages")
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_SECONDS) != 0
        (record,) = instance.get_runs()
        assert record.status == dg.DagsterRunStatus.CANCELED
        assert len(words(lines, "end")) == LIMIT  # red without stop_requested: the pages end with the process
        assert len(words(lines, "begin")) == LIMIT
        assert "its running steps have ended" in messages(instance, record.run_id)
        assert held(instance) == []

    def test_a_second_signal_does_not_wait(self, home: Path, instance: dg.DagsterInstance, lines: Path) -> None:
        # Red when the second signal is not heeded: the steps get GRACE_SECONDS.
        process = start(toy_runs.pages_job, home, config(9, 60, heeds_stop=False))
        wait_until(lambda: len(words(lines, "begin")) == LIMIT, "the first pages")
        process.send_signal(signal.SIGINT)
        (record,) = instance.get_runs()
        wait_until(lambda: "get 10 s to end" in messages(instance, record.run_id), "the first signal's effect")
        process.send_signal(signal.SIGINT)
        before = time.monotonic()
        assert process.wait(PATIENCE_SECONDS) != 0
        assert time.monotonic() - before < 8
        record_now = instance.get_run_by_id(record.run_id)
        assert record_now
        assert record_now.status == dg.DagsterRunStatus.CANCELED
        assert "3 steps did not end in time" in messages(instance, record.run_id)
        assert held(instance) == []

    def test_a_run_marked_as_cancelled_ends(self, home: Path, instance: dg.DagsterInstance, lines: Path) -> None:
        # Red without _was_ended_elsewhere: the pages take their minute.
        process = start(toy_runs.pages_job, home, config(9, 60))
        wait_until(lambda: len(words(lines, "begin")) == LIMIT, "the first pages")
        (record,) = instance.get_runs()
        instance.report_run_canceled(record)
        assert process.wait(PATIENCE_SECONDS) != 0
        assert len(words(lines, "end")) == len(words(lines, "begin")) == LIMIT
        assert held(instance) == []

    def test_outside_of_a_run_nobody_asks_to_stop(self) -> None:
        assert not stop_requested().is_set()
