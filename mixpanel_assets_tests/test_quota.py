"""The ledger of counted requests: by itself, between processes, and in the client's hands.

Each test names the guard that it was seen red without.
"""

import io
import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_assets import settings
from mixpanel_assets.errors import Cancelled, ConfigurationError, MixpanelError, QuotaError
from mixpanel_assets.mixpanel.client import MixpanelClient
from mixpanel_assets.mixpanel.engage import ProfileQuery
from mixpanel_assets.mixpanel.export import EventsQuery
from mixpanel_assets.mixpanel.quota import LEARNED_SECONDS, MARGIN_SECONDS, Account, Ledger, Standing
from mixpanel_assets.mixpanel.rate_limits import RateLimits, parse
from mixpanel_assets.mixpanel.retry import RetryPolicy
from mixpanel_assets.mixpanel.start_rate import StartRate
from mixpanel_assets.sandbox import Fault, Limits, Population, Sandbox
from mixpanel_assets.sync.budgets import budget, keep_to

URL = "https://mixpanel.com/api/query"
HOUR = 3600.0


class Clock:
    """Time that passes when told to; as an Event, `wait` lets it pass."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.waits: list[float] = []

    def __call__(self) -> float:
        return self.now


class Stop(threading.Event):
    """A wish to stop that never comes; waiting for it lets the clock go on."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def wait(self, timeout: float | None = None) -> bool:
        self._clock.waits.append(timeout or 0.0)
        self._clock.now += timeout or 0.0
        return False


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def account(tmp_path: Path, clock: Clock) -> Account:
    return Ledger(tmp_path / "quota.sqlite", clock).account(URL, "1", "query")


def spend(account: Account, requests: int) -> None:
    for _ in range(requests):
        account.take("page 0")


def test_the_sixty_first_request_of_an_hour_is_refused_until_the_first_has_left_it(
    account: Account, clock: Clock
) -> None:
    """Red without the check in `take`, and without the deletion of what has left the window."""
    for _ in range(60):
        account.take("page 0")
        clock.now += 10
    with pytest.raises(
        QuotaError, match=r"all 60 requests of the hour are spent, room again in 3010 s \(\d\d:\d\d UTC\)"
    ):
        account.take("page 0")
    clock.now += HOUR + MARGIN_SECONDS - 600 - 1
    with pytest.raises(QuotaError):
        account.take("page 0")
    clock.now += 1
    account.take("page 0")
    assert account.standing().left == 0


def test_what_the_server_does_not_count_is_given_back(account: Account) -> None:
    """Red without the refund in `Ticket.heard`, and when every status is refunded."""
    for status in (401, 402, 429):
        account.take("page 0").heard(status, RateLimits())
    assert account.standing().used == 0
    for status in (200, 400, 403, 500, 503):
        account.take("page 0").heard(status, RateLimits())
    assert account.standing().used == 5


def test_pages_of_a_session_count_once_the_server_refused_one(account: Account, clock: Clock) -> None:
    """Red when session pages always count, and when a refusal teaches nothing."""
    assert not account.take("page 1", session_page=True).counted
    ticket = account.take("page 2", session_page=True)
    ticket.refused(0)
    assert account.take("page 3", session_page=True).counted
    clock.now += LEARNED_SECONDS + 1
    assert not account.take("page 4", session_page=True).counted


def test_a_refused_first_page_says_nothing_about_session_pages(account: Account) -> None:
    """Red when any refusal makes session pages count."""
    account.take("page 0").refused(0)
    assert not account.take("page 1", session_page=True).counted


@pytest.mark.parametrize("limit", [240, 12])
def test_the_limit_that_the_server_names_replaces_the_documented_one_for_a_week(
    account: Account, clock: Clock, limit: int
) -> None:
    """Red when `learn` keeps nothing, and when it is believed for ever."""
    account.take("page 0").heard(200, RateLimits(hourly_limit=limit, window_seconds=1800))
    assert (account.standing().limit, account.standing().learned) == (limit, True)
    spend(account, limit - 1)
    with pytest.raises(QuotaError):
        account.take("page 0")
    clock.now += 1800 + MARGIN_SECONDS
    account.take("page 0")
    clock.now += LEARNED_SECONDS
    assert (account.standing().limit, account.standing().learned) == (60, False)


def test_requests_of_others_are_seen_in_what_the_server_has_left(account: Account) -> None:
    """Red without the entries for the unseen."""
    account.take("page 0").heard(200, RateLimits(hourly_limit=60, hourly_remaining=12))
    assert account.standing().left == 12
    account.take("page 0").heard(200, RateLimits(hourly_limit=60, hourly_remaining=50))
    assert account.standing().left == 11, "our own count is never more generous than itself"


@pytest.mark.parametrize(("reset", "wait"), [(1800, 1800), (None, HOUR + MARGIN_SECONDS), (3_600_000, HOUR)])
def test_a_good_answer_that_leaves_nothing_of_the_hour_is_believed(
    account: Account, clock: Clock, reset: int | None, wait: float
) -> None:
    """Red when 0 is taken for no word, when the time that comes with it is, and without the window as a bound of it."""
    account.take("page 0").heard(200, RateLimits(hourly_remaining=0, reset_seconds=reset))
    assert account.standing().left == 0
    assert account.standing().wait_for(1) == pytest.approx(wait)
    clock.now += wait
    account.take("page 0")


def test_an_hour_that_the_server_calls_spent_stays_spent_as_long_as_it_said(account: Account, clock: Clock) -> None:
    """Red without `blocked_until`: our own count of zero would let the next request out."""
    ticket = account.take("page 0")
    ticket.heard(429, RateLimits(retry_after=900))
    ticket.refused(900)
    with pytest.raises(QuotaError) as refused:
        account.take("page 0")
    assert refused.value.retry_after == pytest.approx(900)
    clock.now += 900
    account.take("page 0")


@pytest.mark.parametrize(
    ("ages", "wait"),
    [([], HOUR + MARGIN_SECONDS), ([1000, 10], HOUR + MARGIN_SECONDS - 1000), ([HOUR + 1, 10], HOUR)],
    ids=["nothing of ours counts", "the oldest leaves", "the server may have forgotten the oldest"],
)
def test_a_spent_hour_without_a_time_ends_when_our_oldest_request_leaves_it(
    account: Account, clock: Clock, ages: list[float], wait: float
) -> None:
    """Red when it ends at once, always after a whole window, or with a request in its margin."""
    began = clock.now
    refused = account.take("page 1", session_page=True)
    for age in ages:
        clock.now = began - age
        account.take("page 0")
    clock.now = began
    assert refused.refused(None) == pytest.approx(wait)
    with pytest.raises(QuotaError) as error:
        account.take("page 0")
    assert error.value.retry_after == pytest.approx(wait)


def test_accounts_do_not_share_a_budget(tmp_path: Path) -> None:
    """Red when the name of an account lacks its API, its host or its project."""
    ledger = Ledger(tmp_path / "quota.sqlite")
    spend(ledger.account(URL, "1", "query"), 60)
    for url, project, api in [(URL, "1", "export"), (URL, "2", "query"), ("https://eu.mixpanel.com", "1", "query")]:
        assert ledger.account(url, project, api).standing().left == 60


def test_a_clock_that_was_set_back_does_not_lock_the_ledger(account: Account, clock: Clock) -> None:
    """Red without the correction of entries from the future: they would block for a day."""
    clock.now += 24 * HOUR
    spend(account, 60)
    clock.now -= 24 * HOUR
    assert account.standing().wait_for(1) == pytest.approx(HOUR + MARGIN_SECONDS)


@pytest.mark.parametrize("ahead", [30 * 24 * HOUR, 1e18])
def test_a_block_noted_by_a_clock_that_was_set_back_ends_within_the_hour(
    account: Account, clock: Clock, ahead: float
) -> None:
    """Red without the correction of such a block: it would last for a month; and if it is not kept, for it would begin
    anew with each look."""
    now = clock.now
    clock.now += ahead
    account.take("page 0").refused(HOUR)
    clock.now = now
    assert account.standing().wait_for(1) == pytest.approx(HOUR + MARGIN_SECONDS)
    clock.now += HOUR + MARGIN_SECONDS
    account.take("page 0")


def test_a_limit_that_makes_no_sense_is_none(account: Account) -> None:
    """Red when any number is believed: one entry for each of three million requests that others seem to have sent."""
    headers = {"RateLimit-Policy": '"project";q=3000000;w=3600', "RateLimit": '"project";r=1;t=1'}
    account.take("page 0").heard(200, parse(headers))
    assert (account.standing().limit, account.standing().used) == (60, 59)


def test_a_file_that_is_no_ledger_is_one_clear_line(tmp_path: Path) -> None:
    """Red without the translation in `Ledger.transaction`."""
    file = tmp_path / "quota.sqlite"
    file.write_text("this is not a database, and long enough to be seen as none" * 20)
    with pytest.raises(
        ConfigurationError, match=r"cannot use the quota ledger .*quota\.sqlite.*: delete it"
    ) as refused:
        Ledger(file).account(URL, "1", "query").take("page 0")
    assert "\n" not in str(refused.value)


_TAKE_ALL_YOU_CAN = """
import sys
from pathlib import Path
from mixpanel_assets.errors import QuotaError
from mixpanel_assets.mixpanel.quota import Ledger
account = Ledger(Path(sys.argv[1])).account("https://mixpanel.com", "1", "query")
print("ready", flush=True)
sys.stdin.readline()
taken = 0
try:
    while True:
        account.take("page 0")
        taken += 1
except QuotaError:
    print(taken)
"""


def test_processes_that_start_together_never_exceed_the_budget_together(tmp_path: Path) -> None:
    """Red without `immediate` in the transaction (they fail, or take more), and with a ledger per process."""
    file = tmp_path / "quota.sqlite"
    Ledger(file).account(URL, "1", "query").learn(RateLimits(hourly_limit=300))
    command = [sys.executable, "-c", _TAKE_ALL_YOU_CAN, str(file)]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    outputs = []
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    for process in processes:
        outputs.append(int(process.communicate(timeout=60)[0]))
        assert process.returncode == 0
    assert sum(outputs) == 300


@given(
    limit=st.integers(1, 8),
    ages=st.lists(st.floats(0, 99), max_size=12),
    requests=st.integers(1, 30),
)
def test_the_promised_wait_is_when_the_last_request_may_really_go(limit: int, ages: list[float], requests: int) -> None:
    """Against a simulation that sends as early as it may. Red when rounds of a whole window are left out."""
    window = 100.0
    leaves = sorted(window - age for age in ages)
    standing = Standing(limit, learned=True, used=len(leaves), window_seconds=window, room_after_seconds=tuple(leaves))
    now, inside = 0.0, list(leaves)
    for _ in range(requests):
        inside = [moment for moment in sorted(inside) if moment > now]
        if len(inside) >= limit:
            now = inside[len(inside) - limit]
            inside = [moment for moment in inside if moment > now]
        inside.append(now + window)
    assert standing.wait_for(requests) == pytest.approx(now)


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
    assert client.queries.standing().used == 1
    assert sandbox.journal.count(endpoint="engage", status=200) == 3
    client.close()


def test_a_server_that_counts_session_pages_is_believed(sandbox: Sandbox) -> None:
    """Red without `Ticket.refused`: the fourth request would be sent, and refused again."""
    sandbox.limits = Limits(queries_per_hour=2, count_session_pages=True)
    client = client_of(Ledger())
    session = client.query_engage_page(0)["session_id"]
    client.query_engage_page(1, session_id=session)
    with pytest.raises(QuotaError, match="hourly quota of the project is spent"):
        client.query_engage_page(2, session_id=session)
    with pytest.raises(QuotaError, match="all 2 requests of the hour are spent"):
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
    assert client.queries.standing().used == 0
    client.close()
    monkeypatch.setenv("MP_QUERY_URL", "http://127.0.0.1:9/api/query")
    client = client_of(Ledger())
    with pytest.raises(MixpanelError):
        client.query_engage_page(0)
    assert client.queries.standing().used == 0
    client.close()


@pytest.mark.parametrize(("retry_after", "wait"), [(1234, 1234), (10**12, HOUR)])
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
    assert clock.waits == [pytest.approx(HOUR + MARGIN_SECONDS)]
    sandbox.faults = [Fault("engage", "status:429", page, body=words)]
    for _ in range(3):
        with pytest.raises(QuotaError):
            client.query_engage_page(page, session_id=session)
    assert sandbox.journal.count(status=429) == 2
    client.close()


def test_what_the_ledger_refuses_is_no_attempt(sandbox: Sandbox) -> None:
    """Red when each call of the function is one: metadata and picture would show requests that nobody sent."""
    client = client_of(Ledger())
    retrier = client.retrier(logging.getLogger("test_quota"))
    spend(client.queries, 59)
    client.fetch_page(ProfileQuery(), 0, None, retrier)
    with pytest.raises(QuotaError):
        client.fetch_page(ProfileQuery(), 0, None, retrier)
    assert len(retrier.attempts) == len(sandbox.journal.requests) == 1
    client.close()


def test_an_export_takes_its_turn_to_start_after_the_ledger(sandbox: Sandbox, tmp_path: Path) -> None:
    """Red when the turn comes first: exports that waited for a locked ledger would then go together."""
    ledger, starts = Ledger(tmp_path / "quota.sqlite"), tmp_path / "export_starts"
    client = MixpanelClient(settings.project(), ledger=ledger, export_starts=StartRate(starts))
    client.save_export(EventsQuery(), "2026-01-01", "2026-01-01", io.BytesIO())
    spend(client.exports, 59)
    starts.unlink()
    with pytest.raises(QuotaError):
        client.save_export(EventsQuery(), "2026-01-01", "2026-01-01", io.BytesIO())
    assert not starts.exists()
    client.close()


def test_a_cancel_while_waiting_for_a_turn_to_start_does_not_count(sandbox: Sandbox) -> None:
    """Red without the refund of what was Cancelled."""
    stop = threading.Event()
    client = client_of(Ledger(), stop)
    stop.set()
    with pytest.raises(Cancelled):
        client.save_export(EventsQuery(), "2026-01-01", "2026-01-01", io.BytesIO())
    assert client.exports.standing().used == 0
    client.close()


def test_a_sync_that_does_not_fit_stops_before_it_asks_for_more(
    account: Account, caplog: pytest.LogCaptureFixture
) -> None:
    """Red without the comparison in `keep_to`."""
    log = logging.getLogger("test_quota")
    free = budget(account, 500, session_pages=True)
    assert free.fits
    keep_to(free, "stop", log)
    account.take("page 1", session_page=True).refused(0)
    spend(account, 30)
    needed = budget(account, 31, session_pages=True)
    with pytest.raises(
        QuotaError, match=r"31 requests, 31 of them counted: 30 of the hour's 60 are left, .* on_quota=wait"
    ):
        keep_to(needed, "stop", log)
    with caplog.at_level(logging.WARNING):
        keep_to(needed, "wait", log)
    assert "waiting for it" in caplog.text
