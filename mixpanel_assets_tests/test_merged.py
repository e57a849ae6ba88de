"""These definitions in somebody else's project, with an IO manager, an executor and assets of its own."""

import pickle
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.reconstruct import ReconstructableRepository

from mixpanel_assets.definitions import build_defs
from mixpanel_assets.sandbox import Population, Sandbox


class TheirIOManager(dg.ConfigurableIOManager):
    """Keeps values as files of the project's own."""

    folder: str

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        (Path(self.folder) / context.step_key).write_bytes(pickle.dumps(obj))

    def load_input(self, context: dg.InputContext) -> Any:
        raise NotImplementedError


@dg.asset(deps=[dg.AssetKey(["mixpanel", "profiles"])])
def their_asset() -> int:
    return 42


_THEIR_FOLDER = dg.EnvVar("THEIR_FOLDER")
defs = dg.Definitions.merge(
    build_defs(),
    dg.Definitions(
        assets=[their_asset],
        resources={"io_manager": TheirIOManager(folder=_THEIR_FOLDER)},
        executor=dg.in_process_executor,
        jobs=[dg.define_asset_job("everything", selection=dg.AssetSelection.assets("their_asset").upstream())],
    ),
)


def _run(name: str, instance: dg.DagsterInstance) -> bool:
    job = ReconstructableRepository.for_module(__name__, "defs").get_reconstructable_job(name)
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    with dg.execute_job(job, instance=instance, run_config=quiet) as result:
        return result.success


@pytest.mark.parametrize("job", ["everything", "sync_profiles"])
def test_their_values_go_where_they_want_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: str) -> None:
    """Red when anything of ours sits on a default key: their value lay in our staging folder, and was swept."""
    monkeypatch.setenv("THEIR_FOLDER", str(tmp_path))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    with Sandbox(Population(profiles=45, seed=2), page_size=10) as sandbox:
        for name, value in sandbox.environment.items():
            monkeypatch.setenv(name, value)
        with dg.DagsterInstance.local_temp(str(tmp_path), overrides={"telemetry": {"enabled": False}}) as instance:
            assert _run(job, instance)
    kept = {file.name: pickle.loads(file.read_bytes()) for file in tmp_path.glob("*") if file.name == "their_asset"}
    assert kept == ({"their_asset": 42} if job == "everything" else {})
    assert not list((tmp_path / "home" / "staging").rglob("their_asset*"))
