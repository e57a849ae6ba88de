"""Ways to run a toy job and to see what became of it."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import dagster as dg

from mixpanel_assets_tests.executor import toy_runs
from mixpanel_assets_tests.executor.toy_runs import POOL, journal

PATIENCE_SECONDS = 60  # for another process; only ever waited for when something is broken


def config(pages: int = 6, seconds: float = 0.05, *, heeds_stop: bool = True, **execution: Any) -> dict[str, Any]:
    ops = {"plan": {"config": {"count": pages}}, "page": {"config": {"seconds": seconds, "heeds_stop": heeds_stop}}}
    return {"ops": ops, "execution": {"config": execution}}


def run(job: dg.JobDefinition, instance: dg.DagsterInstance, **options: Any) -> dg.JobExecutionResult:
    return dg.execute_job(dg.reconstructable(getattr(toy_runs, job.name)), instance=instance, **options)


def start(job: dg.JobDefinition, home: Path, run_config: dict[str, Any] | None = None) -> subprocess.Popen[bytes]:
    """Run a job in a process of its own."""
    command = [sys.executable, "-m", "mixpanel_assets_tests.executor.toy_runs", job.name, str(home)]
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
