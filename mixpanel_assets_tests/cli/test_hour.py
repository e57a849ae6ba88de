"""`mp` and the hour's quota: what is said before, and what stops it."""

import re
import sqlite3
import time
from pathlib import Path

import pytest

from mixpanel_assets.client.quota import LEDGER_FILE, Account, Ledger
from mixpanel_assets.client.rate_limits import RateLimits
from mixpanel_assets.sandbox import Fault, Sandbox
from mixpanel_assets_tests.cli.mp import Mp

# Dagster's own code calls it while it sets up a resource.
pytestmark = [pytest.mark.process, pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run is deprecated")]


def queries(sandbox: Sandbox, tmp_path: Path) -> Account:
    ledger = Ledger(tmp_path / "home" / LEDGER_FILE)
    return ledger.account(sandbox.environment["MP_QUERY_URL"], sandbox.project_id, "query")


def test_a_spent_hour_stops_the_sync_and_says_when(mp: Mp, sandbox: Sandbox, tmp_path: Path) -> None:
    """Red when the resource's client has a ledger of its own."""
    account = queries(sandbox, tmp_path)
    account.learn(RateLimits(hourly_limit=60))
    for _ in range(60):
        account.take("page 0")
    assert mp("fetch", "profiles", "-p") == 1
    assert re.search(r"Error: page 0: all 60 requests of the hour are spent, asked again from .* on, in \d+ s", mp.err)
    assert sandbox.journal.requests == []


def test_an_hour_that_is_spent_by_our_guess_alone_is_asked_about(
    mp: Mp, sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red when the ledger refuses by the documented limit, for both streams; with the setting it is no guess."""
    ledger = Ledger(tmp_path / "home" / LEDGER_FILE)
    for url, api in (("MP_QUERY_URL", "query"), ("MP_EXPORT_URL", "export")):
        account = ledger.account(sandbox.environment[url], sandbox.project_id, api)
        for _ in range(60):
            account.take("a request")
    days = ("--from", "2026-01-01", "--to", "2026-01-01")
    assert mp("fetch", "profiles", "-p") == 0
    assert mp("fetch", "events", *days) == 0
    assert "if Mixpanel allows no more: it is asked" in mp.err
    monkeypatch.setenv("MP_HOURLY_EXPORTS", "61")
    assert mp("fetch", "events", *days) == 1
    assert "0 of the hour's 61 are left" in mp.err
    monkeypatch.setenv("MP_HOURLY_EXPORTS", "62")
    assert mp("fetch", "events", *days) == 0


def test_a_429_for_the_hour_of_somebody_else_does_not_stop_what_comes_a_minute_later(
    mp: Mp, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Red when the 3,600 s of the header are believed: a whole window is no time when it has room."""
    sandbox.faults = [Fault("engage", "limited:window")]
    assert mp("fetch", "profiles", "-p") == 1
    assert mp("fetch", "profiles", "-p") == 1
    assert re.search(r"Mixpanel says that the hour is spent, asked again from .* on, in [56]\d s", mp.err)
    assert len(sandbox.journal.requests) == 1
    with sqlite3.connect(tmp_path / "home" / LEDGER_FILE) as ledger:
        ledger.execute("update told set blocked_until = blocked_until - 60")
    ledger.close()
    assert mp("fetch", "profiles", "-p") == 0


def test_a_sync_that_does_not_fit_stops_after_page_0(mp: Mp, sandbox: Sandbox, tmp_path: Path) -> None:
    """Where session pages count, 2 requests are left, and 5 pages are needed. Red without `enforce` in the first op."""
    account = queries(sandbox, tmp_path)
    account.learn(RateLimits(hourly_limit=60))
    account.block(0.001, session_page=True)
    time.sleep(0.01)
    for _ in range(58):
        account.take("page 0")
    assert mp("fetch", "profiles", "-p") == 1
    assert "4 requests, 4 of them counted: 1 of the hour's 60 are left" in mp.err
    assert "stopped: sync later, or with on_quota=wait" in mp.err
    assert len(sandbox.journal.requests) == 1


def test_a_sync_of_most_of_the_hour_warns_before_it_fetches(mp: Mp, sandbox: Sandbox) -> None:
    """48 pages are 80% of 60. Red without the warning in `_announce`."""
    assert mp("fetch", "profiles", "-p", "--page-size", "1") == 0
    assert "of the hourly quota" not in mp.err, "45 pages are less"
    for number in range(3):
        sandbox.population.add(f"new-{number}", {})
    assert mp("fetch", "profiles", "-p", "--page-size", "1") == 0
    first = mp.err.splitlines()[0]
    assert first.startswith("48 pages are 80% of the hourly quota of 60 queries")


def test_before_the_first_sync_a_plan_says_what_will_tell(mp: Mp, sandbox: Sandbox) -> None:
    """Red when the first plan is refused: a CI that plans before it fetches could never begin."""
    assert mp("plan", "profiles") == 0
    assert (mp.result["requests"], mp.result["counted_requests"], mp.result["fits"]) == (None, 1, True)
    assert "page 0 of the first, one request, will say" in mp.err


def test_a_plan_that_does_not_fit_says_what_would(mp: Mp, sandbox: Sandbox) -> None:
    """Red when the advice is not tried: planned with it, it fits; planned with a day less, it does not."""
    years = ("plan", "events", "--from", "2023-01-01", "--to", "2025-12-31", "--chunk-days")
    assert mp(*years, "7") == 0
    assert (mp.result["fits"], mp.result["chunk_days_that_fit"]) == (False, 19)
    assert "Warning: 157 requests do not fit into what is left of the hour: with --chunk-days 19 it does" in mp.err
    assert mp(*years, "19") == 0
    assert mp.result["fits"]
    assert mp(*years, "18") == 0
    assert not mp.result["fits"]
    assert mp(*years[:-1]) == 0
    assert (mp.result["requests"], mp.result["fits"]) == (11, True), "chosen by itself"
    assert mp("plan", "events", "--from", "1990-01-01", "--to", "2025-12-31") == 0
    assert mp.result["chunk_days_that_fit"] is None
    assert "ask for fewer days" in mp.err
