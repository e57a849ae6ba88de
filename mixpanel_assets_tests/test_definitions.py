"""What the code location consists of, as text: whoever changes a name, a check or a schedule changes it here too."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._config.config_type import ConfigTypeKind

from mixpanel_assets.definitions import build_defs, defs
from mixpanel_assets.streams.profiles.assets import PROFILES_KEY

pytestmark = pytest.mark.process

_EXPECTED = (Path(__file__).parent / "definitions.txt").read_text(encoding="utf-8")


def _described() -> str:
    graph = defs.resolve_asset_graph()
    repository = defs.get_repository_def()
    lines = []
    for key in sorted(graph.get_all_asset_keys(), key=dg.AssetKey.to_user_string):
        spec = graph.get(key)
        kinds = " ".join(sorted(spec.kinds))
        lines.append(f"asset {key.to_user_string()} [{kinds}] in {spec.group_name}, owned by {', '.join(spec.owners)}")
        lines.append(f"  tags {', '.join(sorted(spec.tags))}; metadata {', '.join(sorted(spec.metadata))}")
        lines += [f"  after {parent.to_user_string()}" for parent in sorted(spec.parent_keys)]
        if spec.partitions_def:
            lines.append(f"  partitioned: {type(spec.partitions_def).__name__}")
        if spec.freshness_policy:
            lines.append(f"  fresh: {type(spec.freshness_policy).__name__}")
        if spec.is_materializable:
            lines += _config(repository.assets_defs_by_key[key].node_def.config_schema)
    for check in sorted(graph.asset_check_keys, key=lambda check: (check.asset_key.to_user_string(), check.name)):
        blocking = " blocking" if graph.get_check_spec(check).blocking else ""
        lines.append(f"check {check.asset_key.to_user_string()} {check.name}{blocking}")
    for job in sorted(repository.get_all_jobs(), key=lambda job: job.name):
        assets = sorted(key.to_user_string() for key in job.asset_layer.selected_asset_keys)
        lines.append(f"job {job.name}: {', '.join(assets) or ', '.join(sorted(node.name for node in job.nodes))}")
    for schedule in sorted(repository.schedule_defs, key=lambda schedule: schedule.name):
        lines.append(
            f"schedule {schedule.name} {schedule.cron_schedule} {schedule.job_name} {schedule.default_status.value}"
        )
    for sensor in sorted(repository.sensor_defs, key=lambda sensor: sensor.name):
        lines.append(f"sensor {sensor.name} {sensor.default_status.value}")
    for name, resource in sorted(repository.get_top_level_resources().items()):
        lines += [f"resource {name}", *_config(resource.config_schema)]
    return "\n".join(lines) + "\n"


def _config(schema: Any) -> list[str]:
    """The fields of a config schema, each with its type and default."""
    field = schema.as_field() if schema else None
    fields = getattr(field.config_type, "fields", {}) if field else {}
    return [f"  {name}: {_type(each.config_type)}{_default(each)}" for name, each in sorted(fields.items())]


def _type(config_type: Any) -> str:
    wrapped = {ConfigTypeKind.NONEABLE: "{}?", ConfigTypeKind.ARRAY: "[{}]", ConfigTypeKind.MAP: "{{name: {}}}"}
    if config_type.kind == ConfigTypeKind.SCALAR_UNION:
        return _type(config_type.scalar_type)
    if config_type.kind in wrapped:
        return wrapped[config_type.kind].format(_type(config_type.inner_type))
    return str(config_type.given_name)


def _default(field: Any) -> str:
    return f" = {field.default_value!r}" if field.default_provided else ""


def test_the_code_location_is_what_it_was() -> None:
    """Red when a check, a job, a setting or its default is left out or another; what it should be is made anew by
    `python -m mixpanel_assets_tests.test_definitions > mixpanel_assets_tests/definitions.txt`."""
    assert _described() == _EXPECTED


def test_loads_without_environment_and_without_warnings() -> None:
    """Red when a module reads a setting at import, and when the beta warning about code references is let through."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MP_", "DAGSTER_"))}
    command = [sys.executable, "-W", "error", "-c", "import mixpanel_assets.definitions"]
    done = subprocess.run(command, env=kept, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_asset_says_where_its_code_is() -> None:
    """Red without `_with_code`."""
    graph = defs.resolve_asset_graph()
    for key in graph.materializable_asset_keys:
        assert "dagster/code_references" in graph.get(key).metadata, key


def test_parts_of_your_own() -> None:
    """Red when build_defs drops one of its arguments."""
    own = build_defs(on_failure=print, cron="7 * * * *", freshness=None, owners=["team:growth"], lookback_days=2)
    spec = own.resolve_asset_graph().get(PROFILES_KEY)
    assert (spec.owners, spec.freshness_policy) == (["team:growth"], None)
    repository = own.get_repository_def()
    syncs = [schedule for schedule in repository.schedule_defs if schedule.name.startswith("hourly_")]
    assert {schedule.cron_schedule for schedule in syncs} == {"7 * * * *"}
    assert repository.get_sensor_def("alert_on_failure").default_status == dg.DefaultSensorStatus.RUNNING


@pytest.mark.parametrize(
    ("call", "own"),
    [
        ("import mixpanel_assets.definitions", False),
        ("from mixpanel_assets.process_setup import *; set_up_process()", True),
    ],
)
def test_what_a_process_of_our_own_sets_for_itself(call: str, own: bool) -> None:  # noqa: FBT001
    """Red when an import sets anything aside or changes the environment; or neither in our processes."""
    variable = "DAGSTER_EMIT_PARTITION_SUBSET_IN_PLANNED_EVENTS"
    look = f"print(gc.get_freeze_count() > 100_000, os.environ.get({variable!r}) == 'true')"
    done = subprocess.run(
        [sys.executable, "-c", f"import gc, os; {call}; {look}"], capture_output=True, text=True, timeout=60, check=True
    )
    assert (done.stdout.strip(), done.stderr) == (f"{own} {own}", "")


def test_dagster_ends_without_a_complaint() -> None:
    """Red when what is set aside holds a type of DuckDB's: its bindings then print a hundred lines at the end."""
    command = [sys.executable, "-m", "dagster", "asset", "list", "-m", "mixpanel_assets.definitions"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert "mixpanel/profiles" in done.stdout
    assert done.stderr == ""


if __name__ == "__main__":
    print(_described(), end="")
