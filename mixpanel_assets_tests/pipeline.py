"""The real definitions, run in this process on the threaded executor, and what became of the run.

Belongs here: how tests run a profiles sync and look at its end. Not here: what they expect.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest
from dagster._core.definitions.reconstruct import ReconstructableRepository

from mixpanel_assets.definitions import build_defs
from mixpanel_assets.resources import MixpanelResource
from mixpanel_assets.sandbox import Sandbox

SYNC, RETRY = "sync_profiles", "retry_failed_profile_pages"

# Retries wait milliseconds instead of seconds; all else is as people run it.
defs = build_defs(resources={"mixpanel": MixpanelResource(retry_base_seconds=0.01)})


@dataclass(frozen=True)
class Outcome:
    """How a run ended. `said` is the materialization's metadata, None when there was no materialization; `checks`
    are those that ran; `reason` is what the first failed step gives as its own; `words` are all messages of the
    run's log, errors with their causes."""

    run_id: str
    success: bool
    said: dict[str, Any] | None
    checks: dict[str, bool]
    reason: str | None
    words: str

    @property
    def check(self) -> bool | None:
        """Whether the profiles are complete; None when that check did not run."""
        return self.checks.get("profiles_complete")

    @property
    def failed_pages(self) -> list[int]:
        assert self.said is not None, self.words
        pages: list[int] = self.said["failed_page_indices"]
        return pages


@dataclass
class Pipeline:
    """One DuckDB file and one staging folder, fed from one sandbox."""

    instance: dg.DagsterInstance
    sandbox: Sandbox
    home: Path
    database: Path = field(init=False)

    def __post_init__(self) -> None:
        self.database = self.home / "mixpanel_data.duckdb"

    @classmethod
    def start(
        cls, instance: dg.DagsterInstance, sandbox: Sandbox, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> "Pipeline":
        """Point the environment at the sandbox (which must be running) and at `home`."""
        for name in ("MP_DUCKDB_PATH", "MP_REGION"):
            monkeypatch.delenv(name, raising=False)
        for name, value in {**sandbox.environment, "DAGSTER_HOME": str(home)}.items():
            monkeypatch.setenv(name, value)
        return cls(instance, sandbox, home)

    def sync(self, *, max_concurrent: int = 5, max_attempts: int = 2, **config: Any) -> Outcome:
        """Materialize mixpanel/profiles; `config` is the asset's."""
        ops = {"mixpanel__profiles": {"config": config}}
        return self.run(SYNC, {"ops": ops, **_settings(max_concurrent, max_attempts)})

    def retry(self, *, max_attempts: int = 2) -> Outcome:
        """Run the job that fetches only what failed."""
        return self.run(RETRY, _settings(5, max_attempts))

    def run(self, job: str, run_config: dict[str, Any]) -> Outcome:
        with dg.execute_job(_job(job), instance=self.instance, run_config=run_config) as result:
            return self.outcome(result.run_id)

    def reexecute(self, run_id: str) -> Outcome:
        """Dagster's own "re-execute from failure"."""
        options = dg.ReexecutionOptions.from_failure(run_id, self.instance)
        with dg.execute_job(_job(SYNC), instance=self.instance, reexecution_options=options) as result:
            return self.outcome(result.run_id)

    def outcome(self, run_id: str) -> Outcome:
        """Read back how a run ended."""
        logs = self.instance.all_logs(run_id)
        events = [entry.dagster_event for entry in logs if entry.dagster_event]
        stored = [event for event in events if event.is_step_materialization]
        checks = {
            event.asset_check_evaluation_data.check_name: event.asset_check_evaluation_data.passed
            for event in events
            if event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION
        }
        failures = [event.step_failure_data for event in events if event.is_step_failure]
        reasons = [failure.user_failure_data.description for failure in failures if failure.user_failure_data]
        run = self.instance.get_run_by_id(run_id)
        metadata = stored[-1].step_materialization_data.materialization.metadata if stored else None
        return Outcome(
            run_id=run_id,
            success=run is not None and run.is_success,
            said={name: value.value for name, value in metadata.items()} if metadata is not None else None,
            checks=checks,
            reason=reasons[0] if reasons else None,
            words="\n".join(
                [*(entry.message for entry in logs), *(str(each.error_display_string) for each in failures)]
            ),
        )

    def table(self) -> dict[str, str | None] | None:
        """distinct_id -> properties as stored; None when there is no table."""
        rows = self.query("select distinct_id, properties::varchar from {schema}.profiles")
        if rows is None:
            return None
        assert len({row[0] for row in rows}) == len(rows), "a distinct_id is stored twice"
        return dict(rows)

    def query(self, sql: str) -> list[Any] | None:
        """Rows of a query, `{schema}` being mixpanel's; None when the tables are not there."""
        if not self.database.exists():
            return None
        with duckdb.connect(str(self.database)) as connection:
            try:
                return connection.execute(sql.format(schema="mixpanel")).fetchall()
            except duckdb.CatalogException:
                return None

    def truth(self) -> dict[str, str | None]:
        """What the table should hold now: what is served, with U+FFFD for the halves of surrogate pairs."""
        return {key: _unicode(text) for key, text in self.sandbox.population.profiles()}


def _unicode(text: str) -> str:
    # The two that sandbox/hostile.py serves; a whole pair is none of them.
    return text.replace("\\ud800", "\\ufffd").replace("\\udc00", "\\ufffd")


def _job(name: str) -> Any:
    return ReconstructableRepository.for_module(__name__, "defs").get_reconstructable_job(name)


def _settings(max_concurrent: int, max_attempts: int) -> dict[str, Any]:
    return {
        "execution": {"config": {"max_concurrent": max_concurrent}},
        "resources": {"mixpanel": {"config": {"max_attempts": max_attempts, "retry_base_seconds": 0.01}}},
        "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
    }
