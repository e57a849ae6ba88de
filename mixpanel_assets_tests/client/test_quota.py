"""The ledger of counted requests: by itself, between processes, and in the client's hands.

Each test names the guard that it was seen red without.
"""

import contextlib
import gc
import io
import logging
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, TimeoutError
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_assets import settings
from mixpanel_assets.client import ledger_file
from mixpanel_assets.client.client import MixpanelClient
from mixpanel_assets.client.quota import LEARNED_SECONDS, MARGIN_SECONDS, Account, Ledger, QuotaStatus
from mixpanel_assets.client.rate_limits import RateLimits, parse
from mixpanel_assets.client.retry import RetryPolicy
from mixpanel_assets.client.start_rate import StartRate
from mixpanel_assets.errors import Cancelled, ConfigurationError, MixpanelError, QuotaError
from mixpanel_assets.sandbox import Fault, Limits, Population, Sandbox
from mixpanel_assets.streams.budgets import budget, keep_to
from mixpanel_assets.streams.events.fetch import save_export
from mixpanel_assets.streams.events.query import EventsQuery
from mixpanel_assets.streams.profiles.fetch import fetch_page
from mixpanel_assets.streams.profiles.query import ProfileQuery

pytestmark = pytest.mark.process

URL = "https://mixpanel.com/api/query"
HOUR = 3600.0
MINUTE = 60.0


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


def refuse(account: Account) -> float:
    """A request that is answered with a 429 for the hour, without headers; for how long it blocks."""
    reservation = account.take("page 0")
    reservation.on_response(429, RateLimits())
    return reservation.on_refusal(None)


def test_the_sixty_first_request_of_an_hour_is_refused_until_the_first_has_left_it(
    account: Account, clock: Clock
) -> None:
    """Red without the check in `take`, and without the deletion of what has left the window."""
    account.learn(RateLimits(hourly_limit=60))
    for _ in range(60):
        account.take("page 0")
        clock.now += 10
    with pytest.raises(
        QuotaError, match=r"all 60 requests of the hour are spent, asked again from \d\d:\d\d UTC on, in 3010 s"
    ):
        account.take("page 0")
    clock.now += HOUR + MARGIN_SECONDS - 600 - 1
    with pytest.raises(QuotaError):
        account.take("page 0")
    clock.now += 1
    account.take("page 0")
    assert account.quota().left == 0


def test_what_the_server_does_not_count_is_given_back(account: Account) -> None:
    """Red without the refund in `Reservation.on_response`, and when every status is refunded."""
    for status in (401, 402, 429):
        account.take("page 0").on_response(status, RateLimits())
    assert account.quota().used == 0
    for status in (200, 400, 403, 500, 503):
        account.take("page 0").on_response(status, RateLimits())
    assert account.quota().used == 5


def test_pages_of_a_session_count_once_the_server_refused_one(account: Account, clock: Clock) -> None:
    """Red when session pages always count, and when a refusal teaches nothing."""
    assert not account.take("page 1", session_page=True).counted
    reservation = account.take("page 2", session_page=True)
    reservation.on_refusal(None)
    clock.now += MINUTE
    assert account.take("page 3", session_page=True).counted
    clock.now += LEARNED_SECONDS + 1
    assert not account.take("page 4", session_page=True).counted


def test_a_refused_first_page_says_nothing_about_session_pages(account: Account) -> None:
    """Red when any refusal makes session pages count."""
    account.take("page 0").on_refusal(None)
    assert not account.take("page 1", session_page=True).counted


@pytest.mark.parametrize("limit", [240, 12])
def test_the_limit_that_the_server_names_replaces_the_documented_one_for_a_week(
    account: Account, clock: Clock, limit: int
) -> None:
    """Red when `learn` keeps nothing, and when it is believed for ever."""
    account.take("page 0").on_response(200, RateLimits(hourly_limit=limit, window_seconds=1800))
    assert (account.quota().limit, account.quota().learned) == (limit, True)
    spend(account, limit - 1)
    with pytest.raises(QuotaError):
        account.take("page 0")
    clock.now += 1800 + MARGIN_SECONDS
    account.take("page 0")
    clock.now += LEARNED_SECONDS
    assert (account.quota().limit, account.quota().learned) == (60, False)


def test_requests_of_others_are_seen_in_what_the_server_has_left(account: Account) -> None:
    """Red without the entries for the unseen."""
    account.take("page 0").on_response(200, RateLimits(hourly_limit=60, hourly_remaining=12))
    assert account.quota().left == 12
    account.take("page 0").on_response(200, RateLimits(hourly_limit=60, hourly_remaining=50))
    assert account.quota().left == 11, "our own count is never more generous than itself"


@pytest.mark.parametrize(("reset", "wait"), [(1800, 1800), (None, MINUTE), (3600, MINUTE), (3_600_000, MINUTE)])
def test_a_good_answer_that_leaves_nothing_of_the_hour_is_believed(
    account: Account, clock: Clock, reset: int | None, wait: float
) -> None:
    """Red when 0 is taken for no word, when the time that comes with it is, and without the window as a bound of it."""
    account.take("page 0").on_response(200, RateLimits(hourly_remaining=0, reset_seconds=reset))
    assert account.quota().left == 0
    assert account.quota().wait_for(1) == pytest.approx(wait)
    clock.now += wait
    account.take("page 0")


def test_an_hour_that_the_server_calls_spent_stays_spent_as_long_as_it_said(account: Account, clock: Clock) -> None:
    """Red without `blocked_until`: our own count of zero would let the next request out."""
    reservation = account.take("page 0")
    reservation.on_response(429, RateLimits(retry_after=900))
    reservation.on_refusal(900)
    with pytest.raises(QuotaError) as refused:
        account.take("page 0")
    assert refused.value.retry_after == pytest.approx(900)
    clock.now += 900
    account.take("page 0")


@pytest.mark.parametrize(("limit", "first"), [(None, 60), (240, 15), (12, 300)])
def test_a_refusal_that_names_no_time_blocks_shortly_and_twice_as_long_each_time_until_a_success(
    tmp_path: Path, clock: Clock, limit: int | None, first: float
) -> None:
    """Red when it blocks an hour, does not double, doubles beyond the window, and without `unblock`."""
    account = Ledger(tmp_path / "quota.sqlite", clock).account(URL, "1", "query", limit)
    for doublings in (0, 1, 2):
        refuse(account)
        with pytest.raises(QuotaError) as error:
            account.take("page 0")
        assert error.value.retry_after == pytest.approx(first * 2**doublings)
        clock.now += first * 2**doublings
    account.take("page 0").on_response(200, RateLimits())
    assert refuse(account) == pytest.approx(first)
    for _ in range(40):
        clock.now += 2 * HOUR
        last = refuse(account)
    assert last == pytest.approx(HOUR + MARGIN_SECONDS)


def test_requests_that_were_under_way_together_are_one_refusal_and_their_success_ends_none(
    account: Account, clock: Clock
) -> None:
    """Red when each of them doubles the wait (ten exports: an hour), and when an old one's success ends the block."""
    early = account.take("page 0")
    together = [account.take("page 0") for _ in range(10)]
    for reservation in together:
        reservation.on_response(429, RateLimits())
        assert reservation.on_refusal(None) == pytest.approx(MINUTE)
    early.on_response(200, RateLimits())
    with pytest.raises(QuotaError):
        account.take("page 0")
    clock.now += MINUTE
    assert refuse(account) == pytest.approx(2 * MINUTE)


def test_a_full_hour_that_is_only_our_guess_is_asked_about(account: Account, clock: Clock) -> None:
    """Red when `take` refuses: the server may allow more, and says so only when it is asked."""
    spend(account, 60)
    account.take("page 0").on_response(200, RateLimits())
    asked = account.take("page 0")
    asked.on_response(429, parse({"RateLimit-Policy": '"project";q=60;w=3600', "RateLimit": '"project";r=0;t=3600'}))
    asked.on_refusal(None)
    clock.now += 2 * MINUTE
    with pytest.raises(QuotaError, match="all 60 requests of the hour are spent"):
        account.take("page 0")


def test_a_quota_that_the_user_knows_of_replaces_the_documented_one(tmp_path: Path) -> None:
    """Red when the setting is not read; when the server's lower word is not; and when a higher setting is never asked
    for after it."""
    account = Ledger(tmp_path / "quota.sqlite").account(URL, "1", "export", 240)
    spend(account, 240)
    with pytest.raises(QuotaError, match="all 240 requests"):
        account.take("page 0")
    account.learn(RateLimits(hourly_limit=200))
    assert (account.quota().limit, account.quota().learned, account.quota().may_ask) == (200, True, True)
    account.learn(RateLimits(hourly_limit=400))
    assert (account.quota().limit, account.quota().learned, account.quota().may_ask) == (240, False, False)


POLICY = '"project";q=60;w=3600, "project-concurrency";q=5;qu="concurrent-requests"'


@pytest.mark.parametrize(
    ("policy", "state", "told"),
    [
        (POLICY, '"project";r=0;t=900, "project-concurrency";r=3', (60, 3600, 0, 900)),
        (POLICY, '"project";r=12, "project-concurrency";r=0;t=10', (60, 3600, 12, None)),
        ('"hourly";q=240;w=3600', '"hourly";r=0;t=900', (240, 3600, 0, 900)),
        ('"project" ; q=60 ; w=3600', '"project" ;r=0 ; t=900', (60, 3600, 0, 900)),
        ('"project";w=1800;q=60;pk=":cHJv,;:"', '"project";t=900;r=0', (60, 1800, 0, 900)),
        ('"project";q=60;w=3600', '"renamed";r=0;t=900', (60, 3600, 0, 900)),
        ("", '"renamed";r=0;t=900', (None, None, 0, 900)),
        ("project;q=60;w=3600", "project;r=0;t=900", (60, 3600, 0, 900)),
        ('"a";q=3;w=1, "b";q=60;w=3600', '"a";r=0;t=1, "b";r=7', (60, 3600, 7, None)),
        ('"hour";q=60;w=3600, "day";q=500;w=86400', '"hour";r=9, "day";r=0;t=7200', (500, 86400, 0, 7200)),
        ('"x";q=5;qu="concurrent-requests"', '"x";r=0;t=10', (None, None, None, None)),
        ("nonsense", ";;;r=0", (None, None, None, None)),
    ],
)
def test_the_length_of_a_window_says_what_it_is_and_not_its_name(
    policy: str, state: str, told: tuple[int | None, ...]
) -> None:
    """Red when the name decides, and when a space before a semicolon ends the item."""
    limits = parse({"RateLimit-Policy": policy, "RateLimit": state})
    assert (limits.hourly_limit, limits.window_seconds, limits.hourly_remaining, limits.reset_seconds) == told


def test_accounts_do_not_share_a_budget(tmp_path: Path) -> None:
    """Red when the name of an account lacks its API, its host or its project."""
    ledger = Ledger(tmp_path / "quota.sqlite")
    spend(ledger.account(URL, "1", "query"), 60)
    for url, project, api in [(URL, "1", "export"), (URL, "2", "query"), ("https://eu.mixpanel.com", "1", "query")]:
        assert ledger.account(url, project, api).quota().left == 60


def test_a_clock_that_was_set_back_does_not_lock_the_ledger(account: Account, clock: Clock) -> None:
    """Red without the correction of entries from the future: they would block for a day."""
    clock.now += 24 * HOUR
    spend(account, 60)
    clock.now -= 24 * HOUR
    assert account.quota().wait_for(1) == pytest.approx(HOUR + MARGIN_SECONDS)


@pytest.mark.parametrize("ahead", [30 * 24 * HOUR, 1e18])
def test_a_block_noted_by_a_clock_that_was_set_back_ends_within_the_hour(
    account: Account, clock: Clock, ahead: float
) -> None:
    """Red without the correction of such a block: it would last for a month; and if it is not kept, for it would begin
    anew with each look."""
    now = clock.now
    clock.now += ahead
    account.take("page 0").on_refusal(HOUR)
    clock.now = now
    assert account.quota().wait_for(1) == pytest.approx(HOUR + MARGIN_SECONDS)
    clock.now += HOUR + MARGIN_SECONDS
    account.take("page 0")


def test_a_limit_that_makes_no_sense_is_none(account: Account) -> None:
    """Red when any number is believed: one entry for each of three million requests that others seem to have sent."""
    headers = {"RateLimit-Policy": '"project";q=3000000;w=3600', "RateLimit": '"project";r=1;t=1'}
    account.take("page 0").on_response(200, parse(headers))
    assert (account.quota().limit, account.quota().used) == (60, 59)


def damage_by_text(file: Path) -> None:
    file.write_text("this is not a database, and long enough to be seen as none" * 200)


def damage_by_half(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def damage_by_zeros(file: Path) -> None:
    body = file.read_bytes()
    file.write_bytes(body[:4096] + bytes(len(body) - 4096))


def damage_by_other_tables(file: Path) -> None:
    file.unlink()
    with contextlib.closing(sqlite3.connect(file)) as other:
        other.execute("create table counted (what text)")


@pytest.mark.parametrize("damage", [damage_by_text, damage_by_half, damage_by_zeros, damage_by_other_tables])
def test_a_damaged_ledger_is_put_aside_and_begun_anew(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    """Red when it is refused until a person deletes it, and when each of several that find it puts one aside."""
    file = tmp_path / "quota.sqlite"
    account = Ledger(file).account(URL, "1", "query")
    spend(account, 5)
    damage(file)
    damaged = file.read_bytes()
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: Ledger(file).account(URL, "1", "query").take("page 0"), range(8)))
    assert account.quota().used == 8
    assert (tmp_path / "quota.damaged").read_bytes() == damaged
    assert [record.getMessage() for record in caplog.records if "begun anew" in record.getMessage()] == [
        caplog.records[0].getMessage()
    ]


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    """Red without the translation in `LedgerFile.transaction`, and when the advice is to delete the ledger."""
    (tmp_path / "home").write_text("a file")
    with pytest.raises(ConfigurationError, match=r"cannot use the quota ledger .*: set DAGSTER_HOME to") as refused:
        Ledger(tmp_path / "home" / "quota.sqlite").account(URL, "1", "query").take("page 0")
    assert "\n" not in str(refused.value)


_LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute(sys.argv[2])
connection.execute("select count(*) from counted").fetchall()
print("locked", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("lock", ["begin immediate", "begin exclusive", "begin"])
def test_a_lock_is_named_and_waited_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, lock: str
) -> None:
    """Red when the wait ends before the lock does, when nobody is told, and when a wish to stop is not heard."""
    monkeypatch.setattr(ledger_file, "_TOLD_AFTER_SECONDS", 0.3)
    file, stop = tmp_path / "quota.sqlite", threading.Event()
    account = Ledger(file, stop=stop).account(URL, "1", "query")
    account.take("page 0")
    command = [sys.executable, "-c", _LOCK, str(file), lock]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdin is not None
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        with ThreadPoolExecutor(1) as thread:
            taken = thread.submit(account.take, "page 0")
            with pytest.raises(TimeoutError):
                taken.result(timeout=1.5)
            holder.stdin.write("go\n")
            holder.stdin.flush()
            assert taken.result(timeout=10).counted
    who = f"process {holder.pid}" if sys.platform == "linux" else "another process"
    assert [record.getMessage() for record in caplog.records] == [
        f"the quota ledger {file} is locked by {who}; waiting for it"
    ]
    assert account.quota().used == 2
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as holder_here:
        holder_here.execute("begin exclusive")
        stop.set()
        with pytest.raises(Cancelled):
            account.take("page 0")


_TAKE_ALL_YOU_CAN = """
import sys
from pathlib import Path
from mixpanel_assets.errors import QuotaError
from mixpanel_assets.client.quota import Ledger
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
    quota = QuotaStatus(
        limit, learned=True, certain=True, used=len(leaves), window_seconds=window, seconds_until_free=tuple(leaves)
    )
    now, inside = 0.0, list(leaves)
    for _ in range(requests):
        inside = [moment for moment in sorted(inside) if moment > now]
        if len(inside) >= limit:
            now = inside[len(inside) - limit]
            inside = [moment for moment in inside if moment > now]
        inside.append(now + window)
    assert quota.wait_for(requests) == pytest.approx(now)


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
    retrier = client.retrier(logging.getLogger("test_quota"))
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
    """Red without the comparison in `keep_to`."""
    log = logging.getLogger("test_quota")
    free = budget(account, 500, session_pages=True)
    assert free.fits
    keep_to(free, "stop", log)
    account.take("page 1", session_page=True).on_refusal(None)
    clock.now += MINUTE
    spend(account, 30)
    needed = budget(account, 31, session_pages=True)
    with pytest.raises(
        QuotaError, match=r"31 requests, 31 of them counted: 30 of the hour's 60 are left, .* on_quota=wait"
    ):
        keep_to(needed, "stop", log)
    with caplog.at_level(logging.WARNING):
        keep_to(needed, "wait", log)
    assert "waiting for it" in caplog.text
    spend(account, 30)
    with caplog.at_level(logging.WARNING):
        keep_to(budget(account, 31, session_pages=True), "stop", log)
    assert "if Mixpanel allows no more: it is asked" in caplog.text


def test_a_ledger_in_memory_is_closed_with_its_last_user() -> None:
    """Red when garbage collection closes the connection instead: Python 3.13 warns of it, and the tests are red."""
    ledger = ledger_file.LedgerFile(None, "")
    with ledger.transaction() as connection:
        connection.execute("select 1")
    del ledger
    gc.collect()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        connection.execute("select 1")
