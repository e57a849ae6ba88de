"""A sandbox that serves, and somebody to ask it."""

from collections.abc import Iterator

import pytest

from mixpanel_assets.sandbox import Limits, Population, Sandbox
from mixpanel_assets_tests.sandbox.caller import Caller


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    # Only TestLimits is about limits: the other tests may export as fast as they like.
    population = Population(profiles=25, events_per_day=40, group_profiles=4)
    with Sandbox(population, page_size=10, limits=Limits(enforce=False)) as running:
        yield running
        assert running.errors == []


@pytest.fixture
def caller(sandbox: Sandbox) -> Caller:
    return Caller(sandbox)
