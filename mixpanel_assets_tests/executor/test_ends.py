"""How runs end that do not end by themselves: killed, and canceled."""

import signal
import sys
import threading
import time
from pathlib import Path

import dagster as dg
import pytest

from mixpanel_assets.executor.lock_files import LockFiles
from mixpanel_assets.executor.run_locks import fail_dead_runs
from mixpanel_assets.stopping import stop_requested
from mixpanel_assets_tests.executor import toy_runs
from mixpanel_assets_tests.executor.running import (
    PATIENCE_SECONDS,
    config,
    held,
    messages,
    run,
    start,
    wait_until,
    words,
)
from mixpanel_assets_tests.executor.toy_runs import LIMIT, POOL

pytestmark = pytest.mark.process


class TestDeadRuns:
    def test_a_killed_run_blocks_nobody(self, home: Path, instance: dg.DagsterInstance, lines: Path) -> None:
        # Red without fail_dead_runs: waits for ever.
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

    def test_a_living_run_is_left_alone(self, home: Path, instance: dg.DagsterInstance) -> None:
        alive, dead = (instance.create_run_for_job(toy_runs.pages_job) for _ in range(2))
        for record in (alive, dead):
            instance.report_dagster_event(dg.DagsterEvent("PIPELINE_START", "pages_job"), record.run_id)
        with LockFiles(home / "run_locks").alive(alive.run_id, threading.Event()):
            (home / "run_locks" / f"{dead.run_id}.lock").touch()
            assert fail_dead_runs(instance) == [dead.run_id]
            assert [path.name for path in (home / "run_locks").glob("*.lock")] == [f"{alive.run_id}.lock"]
        statuses = [instance.get_run_by_id(record.run_id).status.value for record in (alive, dead)]  # type: ignore[union-attr]
        assert statuses == ["STARTED", "FAILURE"]


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
        assert fail_dead_runs(instance) == [record.run_id], "its process took them along"
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
