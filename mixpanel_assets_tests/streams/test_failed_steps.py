"""What did not come shows in its own step, while the steps after it run."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from mixpanel_assets.sandbox import Fault
from mixpanel_assets.streams import failed_steps
from mixpanel_assets_tests.events_pipeline import FIRST, SYNC, EventsPipeline, events_pipeline

pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run is deprecated")

LAST, FAILING = "2026-01-03", "2026-01-02"
DAYS = {"dagster/asset_partition_range_start": FIRST, "dagster/asset_partition_range_end": LAST}


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EventsPipeline]:
    with events_pipeline(tmp_path, monkeypatch) as pipeline:
        pipeline.sandbox.faults = [Fault("export", "status:403", from_date=FAILING, times=None)]
        yield pipeline


def _sync(pipeline: EventsPipeline, **execution: Any) -> list[dg.DagsterEvent]:
    """The steps that were up for retry, in a sync of which one day fails: it stores the others, and asks for each
    once."""
    config = {"ops": {"mixpanel__events": {"config": {"chunk_days": 1}}}, "execution": {"config": execution}}
    sent = len(pipeline.asked())
    outcome = pipeline.run(SYNC, config, tags=DAYS)
    assert sorted(outcome.days) == [FIRST, LAST]
    assert outcome.said["failed_date_ranges"] == [[FAILING, FAILING]]
    assert len(pipeline.asked()) - sent == 3
    retries = pipeline.instance.all_logs(outcome.run_id, dg.DagsterEventType.STEP_UP_FOR_RETRY)
    return [entry.dagster_event for entry in retries if entry.dagster_event]


def test_a_chunk_that_failed_is_up_for_retry_and_is_not_asked_for_again(pipeline: EventsPipeline) -> None:
    """Red when its step is as green as the others; red when the second attempt sends requests."""
    [event] = _sync(pipeline)
    assert event.step_key == "mixpanel__events.fetch_chunk[c00001]"
    error = event.step_retry_data.error
    assert error is not None
    assert "Mixpanel answered 403" in error.message
    assert (error.stack, error.cause, "\n" in error.message.strip()) == ([], None, False)


def test_where_steps_are_not_tried_again_nothing_is_lost(pipeline: EventsPipeline) -> None:
    """Red when the step asks for a retry all the same: Dagster fails it, and what depends on it never runs."""
    assert _sync(pipeline, retries={"disabled": {}}) == []


def test_a_sync_of_which_nothing_comes_is_not_twice_as_long(
    pipeline: EventsPipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red without the bound."""
    monkeypatch.setattr(failed_steps, "_MOST_SHOWN", 0)
    assert _sync(pipeline) == []
