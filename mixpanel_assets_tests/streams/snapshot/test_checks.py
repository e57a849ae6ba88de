"""What the checks of mixpanel/profiles see, in real runs over a table that somebody changed meanwhile."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from mixpanel_assets.sandbox import Population, Sandbox
from mixpanel_assets.streams.profiles.assets import PROFILES_KEY
from mixpanel_assets_tests.pipeline import Pipeline, defs

_TABLE = "mixpanel.profiles"
_FIRST = f"distinct_id in (select distinct_id from {_TABLE} order by all limit"


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Pipeline]:
    (tmp_path / "instance").mkdir()
    with (
        dg.DagsterInstance.local_temp(str(tmp_path / "instance")) as instance,
        Sandbox(Population(profiles=30), page_size=20) as sandbox,
    ):
        yield Pipeline.start(instance, sandbox, tmp_path, monkeypatch)


def _checked_after(pipeline: Pipeline, sql: str) -> set[str]:
    """Sync twice, change the table, run the checks alone. Returns the checks that fail."""
    assert pipeline.sync().success
    assert pipeline.sync().success
    with duckdb.connect(str(pipeline.database)) as connection:
        connection.execute(sql.format(table=_TABLE, first=_FIRST))
    checks = dg.define_asset_job("checks", selection=dg.AssetSelection.checks_for_assets(PROFILES_KEY))
    job = dg.Definitions.merge(defs, dg.Definitions(jobs=[checks])).resolve_job_def("checks")
    result = job.execute_in_process(instance=pipeline.instance, raise_on_error=False)
    failed = {each.check_name for each in result.get_asset_check_evaluations() if not each.passed}
    assert result.success == ("profiles_complete" not in failed)
    return failed


@pytest.mark.parametrize(
    ("sql", "failed"),
    [
        ("select 1", set()),
        ("insert into {table} by name from {table} limit 1", {"profiles_unique", "profiles_complete"}),
        (
            "update {table} set synced_at = now() - interval 25 hour where {first} 1)",
            {"profiles_fresh"},
        ),
        (
            "delete from {table} where {first} 10)",
            {"profiles_not_fewer", "profiles_complete"},
        ),
        (
            "delete from {table} where {first} 1)",
            {"profiles_complete"},
        ),
    ],
    ids=["as it was", "a row twice", "a row left behind", "a third gone", "a row gone"],
)
# Dagster's own in-process execution reads a property that it deprecates.
@pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run:DeprecationWarning")
def test_what_fails(pipeline: Pipeline, sql: str, failed: set[str]) -> None:
    """Red for each check that is taken to have passed."""
    assert _checked_after(pipeline, sql) == failed
