"""Syncs of events in the process of a test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mixpanel_assets_tests.events_pipeline import EventsPipeline, events_pipeline


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EventsPipeline]:
    with events_pipeline(tmp_path, monkeypatch) as pipeline:
        yield pipeline
