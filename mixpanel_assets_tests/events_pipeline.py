"""Runs of `mixpanel/events` in this process, on the threaded executor, and what became of them.

Belongs here: how tests run the asset and look at its end. Not here: what they expect.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._core.storage.partition_status_cache import AssetPartitionStatus

from mixpanel_assets import partitions
from mixpanel_assets.definitions import build_defs
from mixpanel_assets.resources import MixpanelResource
from mixpanel_assets.sandbox import Limits, Population, Sandbox
from mixpanel_assets.streams.events.assets import EVENTS_KEY

SYNC, RETRY = "sync_recent_events", "retry_failed_event_ranges"
FIRST = "2026-01-01"

# Retries wait milliseconds instead of seconds; all else is as people run it.
defs = build_defs(resources={"mixpanel": MixpanelResource(retry_base_seconds=0.01, max_attempts=2)})


@dataclass(frozen=True)
class Outcome:
    """How a run ended: metadata by materialized day, failed and passed checks, the words of its log."""

    run_id: str
    success: bool
    days: dict[str, dict[str, Any]]
    checks: dict[str, bool]
    words: str

    @property
    def said(self) -> dict[str, Any]:
        """Metadata of the last day."""
        return self.days[max(self.days)]


@dataclass
class EventsPipeline:
    """One DuckDB file and one instance, fed from one sandbox."""

    instance: dg.DagsterInstance
    sandbox: Sandbox
    home: Path

    def sync(
        self, first: str, last: str | None = None, *, tags: dict[str, str] | None = None, **config: Any
    ) -> Outcome:
        """Materialize a day or a range; `config` is the asset's."""
        days = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last or first}
        chosen = days if last else {"dagster/partition": first}
        return self.run(SYNC, {"ops": {"mixpanel__events": {"config": config}}}, tags=chosen)

    def retry(self) -> Outcome:
        """Run the job that fetches only what failed."""
        return self.run(RETRY, {})

    def run(self, job: str, run_config: dict[str, Any], **options: Any) -> Outcome:
        """Run a job to its end."""
        quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        with dg.execute_job(
            reconstructable(job), instance=self.instance, run_config={**run_config, **quiet}, **options
        ) as result:
            return self.outcome(result.run_id)

    def reexecute(self, run_id: str) -> Outcome:
        """Dagster's own "re-execute from failure"."""
        options = dg.ReexecutionOptions.from_failure(run_id, self.instance)
        with dg.execute_job(reconstructable(SYNC), instance=self.instance, reexecution_options=options) as result:
            return self.outcome(result.run_id)

    def outcome(self, run_id: str) -> Outcome:
        """Read back how a run ended."""
        logs = self.instance.all_logs(run_id)
        events = [entry.dagster_event for entry in logs if entry.dagster_event]
        stored = [event.step_materialization_data.materialization for event in events if event.is_step_materialization]
        checks = [event for event in events if event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION]
        failures = [str(event.step_failure_data.error_display_string) for event in events if event.is_step_failure]
        run = self.instance.get_run_by_id(run_id)
        return Outcome(
            run_id=run_id,
            success=run is not None and run.is_success,
            days={str(day.partition): {name: value.value for name, value in day.metadata.items()} for day in stored},
            checks={
                event.asset_check_evaluation_data.check_name: event.asset_check_evaluation_data.passed
                for event in checks
            },
            words="\n".join([*(entry.message for entry in logs), *failures]),
        )

    def materialized(self) -> set[str]:
        """The days that Dagster shows as materialized."""
        return set(self.instance.get_materialized_partitions(EVENTS_KEY))

    def failed(self) -> set[str]:
        """The days that Dagster shows as failed."""
        days = partitions.event_days()
        shown = self.instance.get_status_by_partition(EVENTS_KEY, days.get_partition_keys(), days) or {}
        return {day for day, status in shown.items() if status == AssetPartitionStatus.FAILED}

    def query(self, sql: str) -> list[Any]:
        """Rows of a query, `{schema}` being mixpanel's."""
        with duckdb.connect(str(self.home / "mixpanel_data.duckdb")) as connection:
            return connection.execute(sql.format(schema="mixpanel")).fetchall()

    def rows(self) -> list[tuple[str, str]]:
        """(event name, properties as stored), sorted."""
        return sorted(self.query("select event_name, properties::varchar from {schema}.events"))

    def truth(self, *days: str) -> list[tuple[str, str]]:
        """What the table should hold for days without duplicates: what was served, with U+FFFD for half pairs."""
        served = (row for day in days for row in self.sandbox.population.events(day, milliseconds=True))
        return sorted((name, unicode(text)) for name, text in served)

    def asked(self) -> list[tuple[str | None, str | None, int]]:
        """The export requests so far: range and status."""
        return [(request.from_date, request.to_date, request.status) for request in self.sandbox.journal.requests]


@contextmanager
def events_pipeline(
    home: Path, monkeypatch: pytest.MonkeyPatch, population: Population | None = None, **options: Any
) -> Iterator[EventsPipeline]:
    """A sandbox with a hundred events a day, an instance, and the environment that joins them."""
    options = {"limits": Limits(exports_per_hour=1000), **options}
    with Sandbox(population or Population(events_per_day=100), **options) as sandbox:
        for name in ("MP_DUCKDB_PATH", "MP_TIMEZONE", "MP_EVENTS_START_DATE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in {**sandbox.environment, "DAGSTER_HOME": str(home)}.items():
            monkeypatch.setenv(name, value)
        with dg.DagsterInstance.local_temp(str(home), overrides={"telemetry": {"enabled": False}}) as instance:
            yield EventsPipeline(instance, sandbox, home)
        assert not sandbox.errors, json.dumps(sandbox.errors)


def unicode(text: str) -> str:
    """The text as it is stored: halves of surrogate pairs that sandbox/hostile.py serves, as U+FFFD."""
    return text.replace("\\ud800", "\\ufffd").replace("\\udc00", "\\ufffd")


def reconstructable(name: str) -> Any:
    """A job of this module's definitions."""
    return ReconstructableRepository.for_module(__name__, "defs").get_reconstructable_job(name)
