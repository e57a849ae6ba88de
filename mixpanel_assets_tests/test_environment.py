"""When the environment is read: as a run begins, so that a notebook may set it after the import."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mixpanel_assets import fetch_events
from mixpanel_assets.cli.main import run
from mixpanel_assets.definitions import build_defs
from mixpanel_assets.errors import ConfigurationError
from mixpanel_assets.sandbox import Population, Sandbox
from mixpanel_assets.streams.events.assets import EVENTS_KEY

# Dagster's own code calls it while it sets up a resource.
pytestmark = [pytest.mark.process, pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run is deprecated")]

_IMPORT_ALL = """
import os, pkgutil, importlib
read = set()

class Watched(type(os.environ)):
    def __getitem__(self, name):
        read.add(name)
        return super().__getitem__(name)

os.environ.__class__ = Watched
import mixpanel_assets
for module in pkgutil.walk_packages(mixpanel_assets.__path__, "mixpanel_assets."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(sorted(name for name in read if name.startswith("MP_") or name == "DAGSTER_HOME"))
"""


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    with Sandbox(Population(events_per_day=5, first_day="2023-01-01")) as sandbox:
        for name, value in {**sandbox.environment, "DAGSTER_HOME": str(tmp_path / "home")}.items():
            monkeypatch.setenv(name, value)
        for name in ("MP_DUCKDB_PATH", "MP_EVENTS_START_DATE", "MP_TIMEZONE"):
            monkeypatch.delenv(name, raising=False)
        yield sandbox


def test_no_import_reads_the_environment() -> None:
    """Red when definitions, and with them the partitions, are made at the import."""
    done = subprocess.run([sys.executable, "-c", _IMPORT_ALL], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "[]\n"


def test_the_first_day_may_be_set_after_the_import(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Red when a run has the partitions of one before: rows are stored, then Dagster's CheckError."""
    assert fetch_events("2024-01-02", "2024-01-03", parallel=True).total_rows == 10  # type: ignore[union-attr]
    with pytest.raises(ConfigurationError, match="2023-05-07 is before the first partition: set MP_EVENTS_START_DATE"):
        fetch_events("2023-05-07", "2023-05-08")
    monkeypatch.setenv("MP_EVENTS_START_DATE", "2023-05-01")
    assert fetch_events("2023-05-07", "2023-05-08").rows == 10  # type: ignore[union-attr]
    monkeypatch.setenv("MP_EVENTS_START_DATE", "2024-06-01")
    monkeypatch.setenv("MP_TIMEZONE", "America/New_York")
    with pytest.raises(ConfigurationError, match="2024-05-31 is before the first partition"):
        fetch_events("2024-05-31", "2024-06-01")
    assert fetch_events("2024-06-01", "2024-06-01").rows == 5  # type: ignore[union-attr]
    assert run(["status"]) == 0
    assert "2023-05-07" in capfd.readouterr().out, "days that are stored stay so, whatever is the first day now"
    assert len(sandbox.journal.requests) == 3


def test_definitions_have_the_days_of_when_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import mixpanel_assets.definitions as location

    def first_day() -> str:
        days = location.defs.resolve_asset_graph().get(EVENTS_KEY).partitions_def
        assert days is not None
        return str(days.get_first_partition_key())

    monkeypatch.setenv("MP_EVENTS_START_DATE", "2022-02-02")
    assert first_day() == "2022-02-02"
    monkeypatch.setenv("MP_EVENTS_START_DATE", "2023-03-03")
    assert first_day() == "2023-03-03"
    assert "defs" in dir(location)
    assert build_defs() is not location.defs
    assert location.defs is location.defs, "made once for the same days"
    with pytest.raises(AttributeError, match="has no attribute 'other'"):
        _ = location.other
