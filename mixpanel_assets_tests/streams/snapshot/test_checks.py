"""What the checks of mixpanel/profiles see, in real runs over a table that somebody changed meanwhile."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from mixpanel_assets.sandbox import Fault, Population, Sandbox
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
            "insert into {table} by name select * replace ('1' as data_group_id) from {table} limit 1",
            {"profiles_complete"},
        ),
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
    ids=["as it was", "a row twice", "a group with an id of a user", "a row left behind", "a third gone", "a row gone"],
)
# Dagster's own in-process execution reads a property that it deprecates.
@pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run:DeprecationWarning")
def test_what_fails(pipeline: Pipeline, sql: str, failed: set[str]) -> None:
    """Red for each check that is taken to have passed."""
    assert _checked_after(pipeline, sql) == failed


@pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run:DeprecationWarning")
def test_a_sync_of_users_answers_for_users(pipeline: Pipeline) -> None:
    """Red when the checks look at the groups too: a group that was synced once is old for ever, and a large one hides
    a drop of users; and when a sync of a group takes the rejected rows of users away."""
    pipeline.sandbox.faults = [Fault("engage", "rows-not-objects", page=1)]
    assert not pipeline.sync().success
    pipeline.sandbox.faults = []
    assert pipeline.sync(data_group_id="-77").success
    assert len(pipeline.query("from {schema}.rejected_rows") or []) == 3
    with duckdb.connect(str(pipeline.database)) as connection:
        connection.execute(
            f"insert into {_TABLE} by name select * replace "
            f"('-77' as data_group_id, now() - interval 30 hour as synced_at) from {_TABLE} limit 20"
        )
    outcome = pipeline.sync()
    assert outcome.success
    assert outcome.said is not None
    assert (outcome.said["rows_in_scope"], outcome.said["dagster/row_count"]) == (30, 50)
    assert outcome.checks == dict.fromkeys(outcome.checks, True)
