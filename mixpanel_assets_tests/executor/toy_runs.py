"""Small jobs for the executor's tests, and a way to run one in a process of its own.

`python -m mixpanel_assets_tests.executor.toy_runs <job> <instance folder> [run config as JSON]` runs a job and exits
with 0 for a success. Every page writes when it began and ended to the file that TOY_JOURNAL names.
"""

import json
import os
import sys
import time
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import dagster as dg

from mixpanel_assets.executor import build_threaded_executor
from mixpanel_assets.stopping import stop_requested

POOL = "toy"
LIMIT = 3
executor = build_threaded_executor({POOL: LIMIT})
in_memory = {"io_manager": dg.mem_io_manager}

colour: ContextVar[str] = ContextVar("colour", default="none")


class Pages(dg.Config):
    count: int = 6


class Page(dg.Config):
    seconds: float = 0.05
    heeds_stop: bool = True


def note(word: str, **details: Any) -> None:
    """Append one line; O_APPEND keeps lines of several processes whole."""
    if path := os.environ.get("TOY_JOURNAL"):
        line = json.dumps({"word": word, "at": time.time(), **details}) + "\n"
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(descriptor, line.encode())
        os.close(descriptor)


def journal(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def most_in_flight(lines: list[dict[str, Any]]) -> int:
    """The largest number of pages that were between their beginning and their end at one time."""
    steps = {"begin": 1, "end": -1}
    changes = sorted((line["at"], steps[line["word"]]) for line in lines if line["word"] in steps)
    running = most = 0
    for _, change in changes:
        running += change
        most = max(most, running)
    return most


@dg.op(out=dg.DynamicOut(int))
def plan(config: Pages) -> Iterator[dg.DynamicOutput[int]]:
    for index in range(config.count):
        yield dg.DynamicOutput(index, mapping_key=f"p{index:03d}")


@dg.op(pool=POOL)
def page(context: dg.OpExecutionContext, config: Page, index: int) -> int:
    note("begin", run=context.run_id, index=index)
    try:
        if config.heeds_stop:
            if stop_requested().wait(config.seconds):
                raise dg.Failure("stopped")
        else:
            time.sleep(config.seconds)
    finally:
        note("end", run=context.run_id, index=index)
    return index


@dg.op
def collect(context: dg.OpExecutionContext, pages: list[int]) -> None:
    # A storage of its own: what is on the disk now, not what this process still holds.
    on_disk = successes_on_disk(context.instance, context.run_id) if context.instance.is_persistent else -1
    note("collect", run=context.run_id, pages=pages, successes_on_disk=on_disk)


def successes_on_disk(instance: dg.DagsterInstance, run_id: str) -> int:
    with dg.DagsterInstance.from_ref(instance.get_ref()) as other:
        return len(other.all_logs(run_id, of_type=dg.DagsterEventType.STEP_SUCCESS))


@dg.job(executor_def=executor, resource_defs=in_memory)
def pages_job() -> None:
    collect(plan().map(page).collect())


@dg.op(pool="uncounted")
def free_page(context: dg.OpExecutionContext, index: int) -> int:
    note("begin", run=context.run_id, index=index)
    time.sleep(0.3)
    note("end", run=context.run_id, index=index)
    return index


@dg.job(executor_def=executor, resource_defs=in_memory)
def free_pages_job() -> None:
    collect(plan().map(free_page).collect())


@dg.op
def reads_what_it_stored(context: dg.OpExecutionContext) -> Iterator[dg.AssetMaterialization | dg.Output[None]]:
    for number in range(20):
        yield dg.AssetMaterialization(f"made{number}")
        assert context.instance.get_latest_materialization_event(dg.AssetKey(f"made{number}"))
    yield dg.Output(None)


@dg.job(executor_def=executor, resource_defs=in_memory)
def reads_what_it_stored_job() -> None:
    reads_what_it_stored()


@dg.op(retry_policy=dg.RetryPolicy(max_retries=2, delay=0.2))
def fails_once(context: dg.OpExecutionContext, index: int) -> int:
    note("try", index=index, attempt=context.retry_number)
    if index == 1 and context.retry_number == 0:
        raise ValueError("the first attempt of page 1")
    if index == 2 and context.retry_number == 0:
        raise dg.RetryRequested(max_retries=1, seconds_to_wait=0.1)
    return index


@dg.success_hook
def on_success(context: dg.HookContext) -> None:
    note("hook", step=context.step_key)


@dg.resource
def counted(_: dg.InitResourceContext) -> Iterator[int]:
    note("resource up")
    yield 1
    note("resource down")


@dg.op(required_resource_keys={"counted"})
def sees_caller(context: dg.OpExecutionContext, index: int) -> str:
    return colour.get()


@dg.op
def collect_words(words: list[str]) -> None:
    note("words", words=words)


@dg.job(executor_def=executor, resource_defs={**in_memory, "counted": counted}, hooks={on_success})
def features_job() -> None:
    collect(plan().map(fails_once).collect())
    collect_words(plan.alias("plan_words")().map(sees_caller).collect())


@dg.op
def fails_unless_fixed(index: int) -> int:
    if index == 1 and not os.environ.get("TOY_FIXED"):
        raise ValueError("page 1 is broken")
    note("fetched", index=index)
    return index


@dg.op(out=dg.Out(is_required=False))
def yields_nothing() -> Iterator[dg.Output[int]]:
    yield from ()


@dg.op
def after_nothing(value: int) -> None:
    note("never")


@dg.job(executor_def=executor)
def broken_job() -> None:
    collect(plan().map(fails_unless_fixed).collect())
    after_nothing(yields_nothing())


def main() -> int:
    name, folder, *config = sys.argv[1:]
    job = dg.reconstructable(getattr(sys.modules["mixpanel_assets_tests.executor.toy_runs"], name))
    has_settings = Path(folder, "dagster.yaml").exists()
    with (dg.DagsterInstance.from_config if has_settings else dg.DagsterInstance.local_temp)(folder) as instance:
        result = dg.execute_job(job, instance=instance, run_config=json.loads(config[0]) if config else None)
        return 0 if result.success else 1


if __name__ == "__main__":
    import mixpanel_assets_tests.executor.toy_runs  # the jobs must be those of the importable module, not of __main__

    sys.exit(mixpanel_assets_tests.executor.toy_runs.main())
