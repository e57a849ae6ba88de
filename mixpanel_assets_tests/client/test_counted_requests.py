"""Requests that count against the hour, in the client's hands.

Each test names the guard that it was seen red without.
"""

import io
import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mixpanel_assets import settings
from mixpanel_assets.client.client import MixpanelClient
from mixpanel_assets.client.quota import Account, Ledger
from mixpanel_assets.client.rate_limits import RateLimits
from mixpanel_assets.client.retry import RetryPolicy
from mixpanel_assets.client.start_rate import StartRate
from mixpanel_assets.errors import Cancelled, ConfigurationError, MixpanelError, QuotaError
from mixpanel_assets.sandbox import Fault, Limits, Population, Sandbox
from mixpanel_assets.streams.budgets import budget, enforce
from mixpanel_assets.streams.events.fetch import save_export
from mixpanel_assets.streams.events.query import EventsQuery
from mixpanel_assets.streams.profiles.fetch import fetch_page
from mixpanel_assets.streams.profiles.query import ProfileQuery
from mixpanel_assets_tests.client.ledger_clock import MINUTE, Clock, Stop, spend

pytestmark = pytest.mark.unit


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    with Sandbox(Population(profiles=30, seed=3), page_size=10) as sandbox:
        for name, value in sandbox.environment.items():
            monkeypatch.setenv(name, value)
        yield sandbox


def client_of(ledger: Ledger, stop: threading.Event | None = None) -> MixpanelClient:
    policy = RetryPolicy(max_attempts=2, base_seconds=0.001)
    return MixpanelClient(settings.project(), policy=policy, stop=stop, ledger=ledger)


def test_only_the_first_page_of_a_session_is_counted(sandbox: Sandbox) -> None:
    """Red when `_send` is not told of the session."""
    client = client_of(Ledger())
    session = client.query_engage_page(0)["session_id"]
    for page in (1, 2):
        client.query_engage_page(page, session_id=session)
    assert client.queries.quota().used == 1
    assert sandbox.journal.count(endpoint="engage", status=200) == 3
    client.close()


def test_a_server_that_counts_session_pages_is_believed(sandbox: Sandbox) -> None:
    """Red without `Reservation.on_refusal`: the fourth request would be sent, and refused again."""
    sandbox.limits = Limits(queries_per_hour=2, count_session_pages=True)
    client = client_of(Ledger())
    session = client.query_engage_page(0)["session_id"]
    client.query_engage_page(1, session_id=session)
    with pytest.raises(QuotaError, match="hourly quota of the project is spent"):
        client.query_engage_page(2, session_id=session)
    with pytest.raises(QuotaError, match="page 2: Mixpanel says that the hour is spent"):
        client.query_engage_page(2, session_id=session)
    assert client.queries.session_pages_count()
    assert len(sandbox.journal.requests) == 3, "what the ledger refuses is not sent"
    client.close()


def test_a_refused_and_an_unreachable_request_do_not_count(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Red without the refunds in `_send`."""
    sandbox.faults.append(Fault("engage", "status:402", times=None))
    client = client_of(Ledger())
    with pytest.raises(MixpanelError):
        client.query_engage_page(0)
    assert client.queries.quota().used == 0
    client.close()
    monkeypatch.setenv("MP_QUERY_URL", "http://127.0.0.1:9/api/query")
    client = client_of(Ledger())
    with pytest.raises(MixpanelError):
        client.query_engage_page(0)
    assert client.queries.quota().used == 0
    client.close()


@pytest.mark.parametrize(("retry_after", "wait"), [(1234, 1234), (3600, MINUTE), (10**12, MINUTE)])
def test_waiting_for_quota_waits_as_long_as_the_server_said_and_goes_on(
    sandbox: Sandbox, clock: Clock, retry_after: int, wait: float
) -> None:
    """Red without the loop in `Retrier.call`; `stop` (the default) raises instead. Red without a bound: no thread can
    wait for so long, which is an OverflowError."""
    sandbox.faults.append(Fault("engage", "limited:window", times=1, retry_after=retry_after))
    ledger = Ledger(clock=clock)
    client = client_of(ledger, Stop(clock))
    with pytest.raises(QuotaError):
        client.query_engage_page(0)
    assert len(client.waiting_for_quota().query_engage_page(0)["results"]) == 10
    assert clock.waits == [pytest.approx(wait)]
    client.close()


@pytest.mark.parametrize("page", [0, 1])
def test_a_429_for_the_hour_that_names_no_time_is_not_asked_again_in_seconds(
    sandbox: Sandbox, clock: Clock, page: int
) -> None:
    """Red when it blocks for no time (sends again), and when the error does not learn the time (nobody waits)."""
    client = client_of(Ledger(clock=clock), Stop(clock))
    first = client.query_engage_page(0)["session_id"]
    session = first if page else None
    words = "1/5 queries running concurrently and 61/60 queries running in the last hour"
    sandbox.faults = [Fault("engage", "status:429", page, body=words)]
    assert len(client.waiting_for_quota().query_engage_page(page, session_id=session)["results"]) == 10
    assert clock.waits == [pytest.approx(MINUTE)]
    sandbox.faults = [Fault("engage", "status:429", page, body=words)]
    for _ in range(3):
        with pytest.raises(QuotaError):
            client.query_engage_page(page, session_id=session)
    assert sandbox.journal.count(status=429) == 2
    client.close()


def test_a_full_hour_is_asked_about_once_and_what_the_server_says_is_learned(sandbox: Sandbox) -> None:
    """Red when the ledger refuses by the documented limit alone, and when a second request goes after the refusal."""
    sandbox.limits = Limits(queries_per_hour=2)
    client = client_of(Ledger())
    for _ in range(2):
        client.query_engage_page(0)
    spend(client.queries, 58)
    for _ in range(3):
        with pytest.raises(QuotaError):
            client.query_engage_page(0)
    assert [request.status for request in sandbox.journal.requests] == [200, 200, 429]
    assert client.queries.quota().learned
    client.close()


def test_exports_that_wait_for_their_turn_hear_of_a_refusal(sandbox: Sandbox) -> None:
    """Red without `check_not_refused`: all ten had been entered before the first was refused, and went. The first three
    need no turn, and may go before the answer is there."""
    sandbox.faults = [Fault("export", "limited:window", times=None)]
    client = client_of(Ledger())
    errors = []
    with ThreadPoolExecutor(10) as threads:
        days = [f"2026-01-{number:02d}" for number in range(1, 11)]
        asked = [threads.submit(save_export, client, EventsQuery(), day, day, io.BytesIO()) for day in days]
        errors = [each.exception() for each in asked]
    assert all(isinstance(error, QuotaError) and error.retry_after for error in errors)
    assert 1 <= len(sandbox.journal.requests) <= 3
    assert client.exports.quota().wait_for(1) == pytest.approx(MINUTE, abs=10), "one refusal, not ten"
    client.close()


@pytest.mark.parametrize(
    "headers",
    [
        {"RateLimit-Policy": '"hourly";q=60;w=3600', "RateLimit": '"hourly";r=0;t=900'},
        {"RateLimit-Policy": '"project" ; q=60 ; w=3600', "RateLimit": '"project" ; r=0 ; t=900'},
        {"RateLimit": '"requests";r=0;t=900'},
    ],
)
def test_a_window_of_any_name_ends_the_attempts_and_blocks(
    sandbox: Sandbox, clock: Clock, headers: dict[str, str]
) -> None:
    """Red when only the name "project" is known: such a 429 was taken for a short wait, and asked again."""
    sandbox.faults = [Fault("engage", "status:429", body="slow down", headers=headers)]
    client = client_of(Ledger(clock=clock), Stop(clock))
    for _ in range(2):
        with pytest.raises(QuotaError) as refused:
            client.query_engage_page(0)
        assert refused.value.retry_after == pytest.approx(900)
    assert len(sandbox.journal.requests) == 1
    clock.now += 900
    assert len(client.query_engage_page(0)["results"]) == 10
    client.close()


def test_a_window_of_a_second_is_waited_out_in_place(sandbox: Sandbox, clock: Clock) -> None:
    """Red when every limit of any name is taken for the hour."""
    headers = {"RateLimit-Policy": '"burst";q=3;w=1', "RateLimit": '"burst";r=0;t=1', "Retry-After": "1"}
    sandbox.faults = [Fault("engage", "status:429", body="slow down", headers=headers)]
    client = client_of(Ledger(clock=clock), Stop(clock))
    assert len(client.query_engage_page(0)["results"]) == 10
    assert clock.waits == [pytest.approx(1, abs=0.1)]
    client.close()


def test_a_known_quota_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Red without the variables, and when any text is a number."""
    assert (settings.hourly_queries(), settings.hourly_exports()) == (None, None)
    monkeypatch.setenv("MP_HOURLY_QUERIES", "240")
    monkeypatch.setenv("MP_HOURLY_EXPORTS", "90")
    assert (settings.hourly_queries(), settings.hourly_exports()) == (240, 90)
    for text in ("0", "-1", "many", "1.5"):
        monkeypatch.setenv("MP_HOURLY_QUERIES", text)
        with pytest.raises(ConfigurationError, match="MP_HOURLY_QUERIES"):
            settings.hourly_queries()


def test_what_the_ledger_refuses_is_no_attempt(sandbox: Sandbox) -> None:
    """Red when each call of the function is one: metadata and picture would show requests that nobody sent."""
    client = client_of(Ledger())
    retrier = client.retrier(logging.getLogger(__name__))
    client.queries.learn(RateLimits(hourly_limit=60))
    spend(client.queries, 59)
    fetch_page(client, ProfileQuery(), 0, None, retrier)
    with pytest.raises(QuotaError):
        fetch_page(client, ProfileQuery(), 0, None, retrier)
    assert len(retrier.attempts) == len(sandbox.journal.requests) == 1
    client.close()


def test_an_export_takes_its_turn_to_start_after_the_ledger(sandbox: Sandbox, tmp_path: Path) -> None:
    """Red when the turn comes first: exports that waited for a locked ledger would then go together."""
    ledger, starts = Ledger(tmp_path / "quota.sqlite"), tmp_path / "export_starts"
    client = MixpanelClient(settings.project(), ledger=ledger, export_starts=StartRate(starts))
    save_export(client, EventsQuery(), "2026-01-01", "2026-01-01", io.BytesIO())
    client.exports.learn(RateLimits(hourly_limit=60))
    spend(client.exports, 59)
    starts.unlink()
    with pytest.raises(QuotaError):
        save_export(client, EventsQuery(), "2026-01-01", "2026-01-01", io.BytesIO())
    assert not starts.exists()
    client.close()


def test_a_cancel_while_waiting_for_a_turn_to_start_does_not_count(sandbox: Sandbox) -> None:
    """Red without the refund of what was Cancelled."""
    stop = threading.Event()
    client = client_of(Ledger(), stop)
    stop.set()
    with pytest.raises(Cancelled):
        save_export(client, EventsQuery(), "2026-01-01", "2026-01-01", io.BytesIO())
    assert client.exports.quota().used == 0
    client.close()


def test_a_sync_that_does_not_fit_stops_before_it_asks_for_more(
    account: Account, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Red without the comparison in `enforce`."""
    log = logging.getLogger(__name__)
    free = budget(account, 500, session_pages=True)
    assert free.fits
    enforce(free, "stop", log)
    account.take("page 1", session_page=True).on_refusal(None)
    clock.now += MINUTE
    spend(account, 30)
    needed = budget(account, 31, session_pages=True)
    with pytest.raises(
        QuotaError, match=r"31 requests, 31 of them counted: 30 of the hour's 60 are left, .* on_quota=wait"
    ):
        enforce(needed, "stop", log)
    with caplog.at_level(logging.WARNING):
        enforce(needed, "wait", log)
    assert "waiting for it" in caplog.text
    spend(account, 30)
    with caplog.at_level(logging.WARNING):
        enforce(budget(account, 31, session_pages=True), "stop", log)
    assert "if Mixpanel allows no more: it is asked" in caplog.text
