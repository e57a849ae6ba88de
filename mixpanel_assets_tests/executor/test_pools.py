"""What several runs share: the slots of a pool."""

import threading
import time
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy
from dagster._core.storage.event_log import SqliteEventLogStorage

from mixpanel_assets.executor.event_log_sqlite import SqliteRunLog
from mixpanel_assets.executor.slots import PoolSlots
from mixpanel_assets_tests.executor import toy_runs
from mixpanel_assets_tests.executor.running import (
    PATIENCE_SECONDS,
    config,
    held,
    run,
    start,
    wait_until,
    words,
)
from mixpanel_assets_tests.executor.toy_runs import LIMIT, POOL, journal, most_in_flight

pytestmark = pytest.mark.process


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

    def test_a_step_that_is_tried_again_gets_a_slot(self, instance: dg.DagsterInstance) -> None:
        """Red when it takes over another's slot while it still has its own: the storage knows a step once."""
        ours = instance.create_run_for_job(toy_runs.pages_job)
        with PoolSlots(instance, ours, {POOL: LIMIT}, {POOL: LIMIT}) as slots:
            assert slots.claim(POOL, "first")
            assert slots.claim(POOL, "second")
            for step_key in ("second", "first"):
                slots.free_step(step_key)
            for step_key in ("first", "second"):
                assert slots.claim(POOL, step_key)
            assert sorted(held(instance)) == ["first", "second"]
        assert held(instance) == []

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

    def test_a_larger_limit_set_by_a_person_does_not_lift_ours(
        self, home: Path, instance: dg.DagsterInstance, lines: Path
    ) -> None:
        """Red without the ceiling in `_write_own_limits`: six in flight. In memory nobody counts, see above."""
        instance.event_log_storage.set_concurrency_slots(POOL, 9)
        runs = [start(toy_runs.pages_job, home, config(9, 0.3)) for _ in range(2)]
        assert [process.wait(PATIENCE_SECONDS) for process in runs] == [0, 0]
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
        storages = [SqliteRunLog(f"{home}/history/runs", name) for name in ("one", "two")]
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
        long = start(toy_runs.pages_job, home, config(40 * slots, 0.3))
        wait_until(lambda: len(words(lines, "begin")) > 2, "the long run's first pages")
        short = start(toy_runs.pages_job, home, config(3, 0.05))
        assert [long.wait(PATIENCE_SECONDS), short.wait(PATIENCE_SECONDS)] == [0, 0]
        assert [len(line["pages"]) for line in words(lines, "collect")] == [3, 40 * slots]

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
