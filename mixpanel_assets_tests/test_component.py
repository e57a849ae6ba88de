"""`MixpanelComponent` in a project of Dagster's components, and `dg` here and there."""

import inspect
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster.components.resolved.errors import ResolutionException
from pydantic import ValidationError

from mixpanel_assets import MixpanelComponent
from mixpanel_assets.definitions import FRESHNESS, build_defs
from mixpanel_assets.errors import ConfigurationError
from mixpanel_assets.executor import threaded_executor
from mixpanel_assets.sandbox import Population, Sandbox
from mixpanel_assets_tests.dagster_dev import REPOSITORY

# Dagster's own call, of pydantic's.
pytestmark = [pytest.mark.process, pytest.mark.filterwarnings("ignore:`parse_obj_as` is deprecated")]

_EU = """
type: mixpanel_assets.MixpanelComponent
attributes:
  name: eu
  schema: europe
  username: "{{ env.EU_USERNAME }}"
  secret: "{{ env.EU_SECRET }}"
  project_id: 22
  region: "{{ env('EU_REGION') }}"
  events_start_date: 2026-01-01
  streams: [profiles, events]
  cron: 7 * * * *
"""
_PROJECT = """
[project]
name = "theirs"
version = "0"
[tool.dg]
directory_type = "project"
[tool.dg.project]
root_module = "theirs"
"""
_DEFINITIONS = """
from pathlib import Path

from dagster import definitions, load_from_defs_folder


@definitions
def defs():
    return load_from_defs_folder(path_within_project=Path(__file__).parent)
"""


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A project as `create-dagster project` lays it out, with nothing in it yet."""
    package = tmp_path / "src" / "theirs"
    (package / "defs").mkdir(parents=True)
    (tmp_path / "pyproject.toml").write_text(_PROJECT)
    (package / "definitions.py").write_text(_DEFINITIONS)
    for folder in (package, package / "defs"):
        (folder / "__init__.py").touch()
    return tmp_path


def _dg(folder: Path, *arguments: str, **environment: str) -> str:
    """What a command of `dg` prints; it must succeed, without a warning."""
    kept = {"DAGSTER_DG_UPDATE_CHECK_ENABLED": "0", "PYTHONPATH": str(folder / "src"), **environment}
    done = subprocess.run(
        [str(Path(sys.executable).with_name("dg")), *arguments],
        cwd=folder,
        env={**os.environ, "VIRTUAL_ENV": sys.prefix, **kept},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert "Warning" not in done.stderr
    return done.stdout


def _assets(listed: str) -> set[str]:
    sections: Mapping[str, Any] = json.loads(listed)
    return {asset["asset_key"] for asset in sections["assets"]}


def test_a_scaffolded_project_has_two_mixpanel_projects(theirs: Path) -> None:
    """Red without the entry point, or when anything of a component is named as another's."""
    _dg(theirs, "scaffold", "defs", "mixpanel_assets.MixpanelComponent", "mixpanel")
    (theirs / "src" / "theirs" / "defs" / "eu").mkdir()
    (theirs / "src" / "theirs" / "defs" / "eu" / "defs.yaml").write_text(_EU)
    listed = _dg(theirs, "list", "defs", "--json")
    assert {"mixpanel/profiles", "mixpanel/cohorts", "mixpanel_eu/profiles", "mixpanel_eu/events"} < _assets(listed)
    assert "mixpanel_eu/cohorts" not in listed
    assert _dg(theirs, "check", "yaml").strip().endswith("validated successfully.")


def test_every_argument_is_in_the_schema() -> None:
    """Red when build_defs has an argument that YAML has not, or one without a description."""
    properties = MixpanelComponent.model().model_json_schema()["properties"]
    assert list(properties) == list(inspect.signature(build_defs).parameters)
    assert {name for name, said in properties.items() if not said.get("description")} == set()


def _made(attributes: str, **in_python: object) -> dg.Definitions:
    component: MixpanelComponent = MixpanelComponent.resolve_from_yaml(attributes, scope=in_python)
    return component.build_defs(dg.ComponentTree.for_test().load_context)


def test_what_yaml_cannot_say_comes_from_the_projects_python() -> None:
    """Red when an argument is taken for text, or is left out on the way."""
    text = 'executor: "{{ ours }}"\non_failure: "{{ tell }}"\nfreshness: "{{ fresh }}"\nowners: ["team:growth"]'
    fresh = dg.FreshnessPolicy.cron("0 7 * * *", FRESHNESS.fail_window.to_timedelta() / 24)
    defs = _made(text, ours=threaded_executor, tell=print, fresh=fresh)
    assert defs.executor is threaded_executor
    alert = defs.get_repository_def().get_sensor_def("alert_on_failure")
    assert alert.default_status == dg.DefaultSensorStatus.RUNNING
    spec = defs.resolve_asset_graph().get(dg.AssetKey(["mixpanel", "profiles"]))
    assert (spec.owners, spec.freshness_policy) == (["team:growth"], fresh)


@pytest.mark.parametrize("written", ["{{ env.EU_SECRET }}", "{{ env('EU_SECRET') }}"])
def test_a_secret_is_its_variables_name(written: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Red when the template is filled in while the file is loaded: the UI shows what resources are configured with."""
    monkeypatch.setenv("EU_SECRET", "hush")
    account = f'username: "{{{{ env.EU_USERNAME }}}}"\nsecret: "{written}"'
    defs = _made(f"name: eu\nproject_id: 2\n{account}")
    assert defs.resources is not None
    assert defs.resources["mixpanel_eu"].variables == {"MP_USERNAME": "EU_USERNAME", "MP_SECRET": "EU_SECRET"}
    assert "hush" not in repr(defs.resources)


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ('username: "{{ env.U }}"\nsecret: s3cret-Value', "write the variable that holds it, as {{ env.MP_SECRET }}"),
        ('username: "{{ env.U }}"\nsecret: HUNTER2', "write the variable that holds it, as {{ env.MP_SECRET }}"),
        ("streams: [profiles, flows]", "streams: 'flows' is none of profiles, events, groups"),
        ("name: Two Words", "name 'Two Words': a project's name is up to 40 small letters"),
        ("secrets: x", "Extra inputs are not permitted"),
        ("cron: [s3cret-Value]", "Input should be a valid string"),
        ("lookback_days: HUNTER2", "Input should be a valid integer"),
        ("lookback_days: -1", "lookback_days must be 0 or more days before today, not -1"),
        ("exclude_properties: '[s3cret-Value'", "exclude_properties is no list of names"),
        ("include_properties: [a]\nexclude_properties: [a]", "'a' is in exclude_properties and in another list"),
    ],
)
def test_what_cannot_be_used_is_refused(attributes: str, words: str) -> None:
    with pytest.raises((ConfigurationError, ValidationError, ResolutionException)) as refused:
        _made(attributes)
    assert words in str(refused.value)
    # Red when pydantic quotes what stands in the wrong place: it may be a secret.
    assert "HUNTER2" not in str(refused.value)
    assert "s3cret-Value" not in str(refused.value)


def test_dg_works_in_this_project(tmp_path: Path) -> None:
    """Red without `[tool.dg]`; `dg dev` is README's, and run by its test."""
    home = {"DAGSTER_HOME": str(tmp_path), "PYTHONPATH": ""}
    (tmp_path / "dagster.yaml").write_bytes((REPOSITORY / "dagster_home" / "dagster.yaml").read_bytes())
    assert "mixpanel/profiles" in _assets(_dg(REPOSITORY, "list", "defs", "--json", **home))
    _dg(REPOSITORY, "check", "defs", **home)
    with Sandbox(Population(profiles=25), page_size=10) as sandbox:
        _dg(REPOSITORY, "launch", "--assets", "mixpanel/profiles", **sandbox.environment, **home)
        assert len(sandbox.journal.requests) == 3
