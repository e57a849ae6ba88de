"""A sandbox that the environment names, and `mp`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mixpanel_assets.sandbox import Population, Sandbox
from mixpanel_assets_tests.cli.mp import SECRET, Mp


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    population = Population(profiles=45, seed=2, events_per_day=10)
    with Sandbox(population, page_size=10, secret=SECRET) as sandbox:
        for name, value in sandbox.environment.items():
            monkeypatch.setenv(name, value)
        for name in ("MP_DUCKDB_PATH", "MP_EVENTS_START_DATE", "MP_TIMEZONE"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
        yield sandbox


@pytest.fixture
def mp(capfd: pytest.CaptureFixture[str]) -> Mp:
    return Mp(capfd)
