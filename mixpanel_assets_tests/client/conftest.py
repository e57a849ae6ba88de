"""A ledger of one account, and its clock."""

from pathlib import Path

import pytest

from mixpanel_assets.client.quota import Account, Ledger
from mixpanel_assets_tests.client.ledger_clock import URL, Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def account(tmp_path: Path, clock: Clock) -> Account:
    return Ledger(tmp_path / "quota.sqlite", clock).account(URL, "1", "query")
