"""`mp status` and `mp plan`: what is known without asking Mixpanel."""

import os
import re

import pytest

from mixpanel_assets.sandbox import Fault, Sandbox
from mixpanel_assets.streams.all import STREAMS
from mixpanel_assets_tests.cli.mp import Mp

# Dagster's own code calls it while it sets up a resource.
pytestmark = [pytest.mark.process, pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run is deprecated")]


def test_status_and_plan_tell_what_is_known(mp: Mp, sandbox: Sandbox) -> None:
    """Red when the ledger of the run is not the one that is read."""
    assert mp("status") == 0
    assert (mp.result["profiles"], mp.result["events"]) == (None, None)
    mp("fetch", "profiles", "-p")
    mp("fetch", "events", "-p", "--from", "2026-01-01", "--to", "2026-01-03", "--chunk-days", "1")
    sandbox.journal.clear()
    assert mp("status") == 0
    assert (mp.result["profiles"]["rows"], mp.result["profiles"]["last_run_status"]) == (45, "SUCCESS")
    assert mp.result["events"]["date_ranges"] == [["2026-01-01", "2026-01-03"]]
    assert (mp.result["quota"]["queries"]["left"], mp.result["quota"]["exports"]["left"]) == (59, 57)
    assert mp("plan", "profiles") == 0
    assert (mp.result["requests"], mp.result["counted_requests"], mp.result["left"]) == (5, 1, 59)
    assert mp("plan", "events", "--from", "2025-01-01", "--to", "2025-12-31") == 0
    assert (mp.result["requests"], mp.result["left"], mp.result["fits"]) == (10, 57, True)
    assert mp("plan", "events", "--from", "2025-01-01", "--to", "2025-12-31", "--chunk-days", "5") == 0
    assert (mp.result["requests"], mp.result["fits"]) == (73, False)
    assert mp.result["wait_seconds"] > 3000
    assert mp("plan", "all", "--last", "7d") == 0
    counted = [mp.result[name]["counted_requests"] for name in ("profiles", "events", "cohorts", "annotations")]
    assert counted == [1, 1, 1, 0]
    assert (mp.result["queries"]["counted_requests"], mp.result["queries"]["left"]) == (3, 59)
    # Red when the cohorts that nobody has counted yet seem to cost nothing.
    assert mp.result["not_known"] == ["cohort_members"]
    assert mp.err == "cohort_members: no sync yet, so its pages are not known; each costs a request besides\n"
    assert mp("plan", "all", "--format", "table") == 0
    assert re.search(r"^annotations +- +0 +59 +True", mp.out, re.MULTILINE)
    assert mp("status", "--format", "table") == 0
    assert re.search(r"^profiles +20\S+ +45 +none +SUCCESS", mp.out, re.MULTILINE)
    assert re.search(r"^cohorts +- +- +- +-", mp.out, re.MULTILINE)
    assert "quota: queries: left" in mp.out
    # Red at the width of a terminal, of which there is none: the path was cut.
    assert f"{os.environ['DAGSTER_HOME']}{os.sep}mixpanel_data.duckdb" in mp.out
    assert sandbox.journal.requests == [], "nothing was asked of Mixpanel"


def test_status_says_why_the_last_run_failed(mp: Mp, sandbox: Sandbox) -> None:
    """Red without the look at the run's failed steps."""
    sandbox.faults.append(Fault("engage", "status:403", times=None))
    mp("fetch", "profiles")
    assert mp("status") == 0
    profiles = mp.result["profiles"]
    assert (profiles["last_sync"], profiles["last_run_status"]) == (None, "FAILURE")
    assert "page 0: Mixpanel answered 403" in profiles["last_run_error"]


def test_the_table_has_streams_alone(mp: Mp, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Red when rows are what looks like a stream: without credentials no quota is known, and it became one."""
    monkeypatch.delenv("MP_SECRET")
    assert mp("status", "--format", "table") == 0
    assert mp.out.partition("\n\n")[0].split() == ["stream", *(stream.name for stream in STREAMS)]
    assert re.search(r"^quota +- *$", mp.out, re.MULTILINE)
