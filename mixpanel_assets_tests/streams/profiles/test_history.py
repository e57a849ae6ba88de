"""`mixpanel/profile_history` in real syncs: begun by one, written with each from then on, and shown as an asset."""

from pathlib import Path

import dagster as dg
import duckdb
import pytest

from mixpanel_assets.sandbox import Fault, Population, Sandbox
from mixpanel_assets_tests.pipeline import Pipeline

HISTORY = dg.AssetKey(["mixpanel", "profile_history"])
ENDED = (
    "select distinct_id, change, changed_properties, ended_by from {schema}.profile_history where valid_to is not null"
)


def test_syncs_write_what_profiles_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that do not ask for it; a page that fails ends no period."""
    (tmp_path / "instance").mkdir()
    with (
        dg.DagsterInstance.local_temp(str(tmp_path / "instance")) as instance,
        Sandbox(Population(profiles=25, hostile=True), page_size=10) as sandbox,
    ):
        pipeline = Pipeline.start(instance, sandbox, tmp_path, monkeypatch)
        assert pipeline.sync().success
        assert pipeline.query("from {schema}.profile_history") is None
        assert instance.get_latest_materialization_event(HISTORY) is None
        begun = pipeline.sync(history=True)
        assert begun.said is not None
        assert (begun.said["history_rows"], begun.said["history_removed"]) == (25, 0)
        ids = [distinct_id for distinct_id, _ in sandbox.population.profiles()]
        sandbox.population.replace(ids[0], {"plan": "other"})
        sandbox.population.remove(ids[24])
        sandbox.faults = [Fault("engage", "status:403", page=1)]
        assert not pipeline.sync().success
        assert [(row[0], row[3]) for row in pipeline.query(ENDED) or []] == [(ids[0], "changed")]
        sandbox.faults = []
        assert pipeline.retry().success
        ended = {row[0]: row[3] for row in pipeline.query(ENDED) or []}
        assert ended == {ids[0]: "changed", ids[24]: "removed"}
        event = instance.get_latest_materialization_event(HISTORY)
        open_rows = "select distinct_id, properties::varchar from {schema}.profile_history where valid_to is null"
        stored = "select distinct_id, properties::varchar from {schema}.profiles"
        assert sorted(pipeline.query(open_rows) or [], key=str) == sorted(pipeline.query(stored) or [], key=str)
        with duckdb.connect(str(pipeline.database)) as connection:
            connection.execute("drop table mixpanel.profile_history")
        assert pipeline.sync().success
        assert pipeline.query("from {schema}.profile_history") is None, "who drops it ends it"
    assert event is not None
    assert event.asset_materialization is not None
    assert event.asset_materialization.metadata["dagster/row_count"].value == 26
