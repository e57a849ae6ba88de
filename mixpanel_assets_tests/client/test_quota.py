"""The ledger of counted requests: by itself, between processes, and in the client's hands.

Each test names the guard that it was seen red without.
"""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_assets.client.quota import LEARNED_SECONDS, MARGIN_SECONDS, Account, Ledger, QuotaStatus
from mixpanel_assets.client.rate_limits import RateLimits, parse
from mixpanel_assets.errors import QuotaError
from mixpanel_assets_tests.client.ledger_clock import HOUR, MINUTE, URL, Clock, refuse, spend

pytestmark = pytest.mark.unit


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
