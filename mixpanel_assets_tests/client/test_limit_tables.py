"""Limits that hosts share through Postgres: the same rules, by the server's clock."""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as db

from mixpanel_assets import postgres
from mixpanel_assets.client.limit_tables import LimitTables
from mixpanel_assets.client.quota import Account, NotSentError
from mixpanel_assets.client.rate_limits import RateLimits
from mixpanel_assets.client.start_rate import MOST_STARTS, WINDOW_SECONDS
from mixpanel_assets.errors import Cancelled, TransientError
from mixpanel_assets_tests.client.ledger_clock import URL, refuse, spend
from mixpanel_assets_tests.postgres import PASSWORD, Database, needs_postgres

pytestmark = needs_postgres

Hosts = Callable[[], LimitTables]


@pytest.fixture
def host(database: Database) -> Iterator[Hosts]:
    """Makes hosts."""
    made: list[LimitTables] = []

    def make() -> LimitTables:
        engine = postgres.engine(database.url, poolclass=db.QueuePool, pool_size=1, pool_pre_ping=True)
        made.append(LimitTables(engine))
        return made[-1]

    yield make
    for each in made:
        each.close()


def account(host: LimitTables, limit: int | None = None) -> Account:
    return host.ledger().account(URL, "1", "query", limit)


def test_two_hosts_spend_one_hour(host: Hosts) -> None:
    """Red without the lock of a transaction: both see room for the same request."""
    accounts = [account(host(), 20), account(host(), 20)]

    def take(number: int) -> bool:
        try:
            accounts[number % 2].take("page 0")
        except NotSentError:
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        taken = list(threads.map(take, range(30)))
    assert taken.count(True) == 20
    assert [each.quota().used for each in accounts] == [20, 20]


def test_what_the_server_says_to_one_host_the_other_knows(host: Hosts) -> None:
    one, other = account(host()), account(host())
    spend(one, 2)
    one.take("page 0").refund()
    one.learn(RateLimits(hourly_limit=100, hourly_remaining=90))
    assert (other.quota().limit, other.quota().used, other.quota().learned) == (100, 10, True)
    assert refuse(one) > 0
    with pytest.raises(NotSentError, match="the hour is spent"):
        other.take("page 0")


def test_it_is_the_servers_clock_that_counts(host: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Red with the clock of the host: one that is an hour ahead would find the hour free."""
    spend(account(host(), 3), 3)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 7200)
    with pytest.raises(NotSentError):
        account(host(), 3).take("page 0")


def test_three_exports_start_within_a_second_over_two_hosts(host: Hosts) -> None:
    """Red when each host notes its own: six."""
    rates = [host().export_starts("1", further=further) for further in (False, True)]
    starts: list[float] = []

    def start(number: int) -> None:
        with rates[number % 2].turn(threading.Event()):
            starts.append(time.monotonic())

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(start, range(10)))
    assert min(later - earlier for earlier, later in zip(starts, starts[MOST_STARTS:], strict=False)) >= 1.0
    assert starts[-1] - starts[0] < 3 * WINDOW_SECONDS + 2


def test_a_cancel_ends_the_wait_for_another_hosts_turn(host: Hosts) -> None:
    stop = threading.Event()
    with host().export_starts("1", further=False).turn(threading.Event()):
        threading.Timer(0.1, stop.set).start()
        with pytest.raises(Cancelled), host().export_starts("1", further=False).turn(stop):
            pass


def test_a_server_that_is_away_is_waited_for_and_then_named_without_the_password(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page is tried again then."""
    monkeypatch.setattr("mixpanel_assets.client.limit_tables._AWAY_SECONDS", 0.6)
    engine = postgres.engine(database.url.replace(f":{database.server.port}/", ":1/"))
    began = time.monotonic()
    with pytest.raises(TransientError, match=r"Postgres at 127.0.0.1:1.* nobody listens there") as refusal:
        account(LimitTables(engine)).take("page 0")
    assert time.monotonic() - began > 0.6
    assert PASSWORD not in str(refusal.value)
