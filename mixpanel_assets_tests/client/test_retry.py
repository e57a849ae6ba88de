"""When a request is sent again: the one layer that decides it. Nothing here sleeps."""

import logging
import threading
import time
from collections.abc import Callable
from typing import NoReturn

import pytest

from mixpanel_assets.client.http import UnreachableError
from mixpanel_assets.client.retry import Retrier, RetryPolicy
from mixpanel_assets.errors import Cancelled, FatalError, MixpanelError, QuotaError, RestartError, TransientError
from mixpanel_assets_tests.client.test_http import NoSleep

pytestmark = pytest.mark.unit

LOG = logging.getLogger(__name__)


def failing(*errors: Exception) -> Callable[[], str]:
    """Raises one after the other, then returns."""
    left = list(errors)

    def call() -> str:
        if left:
            raise left.pop(0)
        return "came"

    return call


def retrier(stop: threading.Event, **policy: float) -> Retrier:
    return Retrier(RetryPolicy(**policy), stop, LOG)  # type: ignore[arg-type]  # numbers of either sort


def test_waits_double_with_jitter_up_to_the_longest() -> None:
    stop = NoSleep()
    with pytest.raises(TransientError, match="no"):
        retrier(stop, max_attempts=8, base_seconds=2, max_backoff_seconds=20).call(failing(*[TransientError("no")] * 9))
    bounds = [(2, 3), (4, 5), (8, 9), (16, 17), (20, 21), (20, 21), (20, 21)]
    assert len(stop.waits) == len(bounds)
    assert all(low <= wait <= high for wait, (low, high) in zip(stop.waits, bounds, strict=True))


def test_jitter_spreads_those_who_failed_together() -> None:
    # Red without wait_random: all the same.
    stop = NoSleep()
    for _ in range(20):
        retrier(stop).call(failing(TransientError("no")))
    assert len({round(wait, 6) for wait in stop.waits}) > 15


@pytest.mark.parametrize("asked", [0.5, 5.0, 60.5, 119.0])
def test_a_wait_that_is_asked_for_is_never_undercut(asked: float) -> None:
    # Red with min instead of max in _wait_seconds, or with the cap of our own waits on it.
    stop = NoSleep()
    retrier(stop).call(failing(TransientError("busy", retry_after=asked)))
    assert max(2.0, asked) <= stop.waits[0] <= max(2.0, asked) + 1.0


def test_a_wait_that_is_too_long_ends_the_attempts() -> None:
    stop = NoSleep()
    one = retrier(stop, max_wait_seconds=120)
    with pytest.raises(TransientError, match="busy"):
        one.call(failing(TransientError("busy", retry_after=120.1)))
    assert (stop.waits, len(one.attempts)) == ([], 1)


@pytest.mark.parametrize("error", [FatalError("x"), RestartError("x"), MixpanelError("x"), QuotaError("x", 1.0)])
def test_only_what_may_pass_is_tried_again(error: MixpanelError) -> None:
    stop = NoSleep()
    one = retrier(stop)
    with pytest.raises(type(error)):
        one.call(failing(error))
    assert (stop.waits, len(one.attempts)) == ([], 1)


def test_a_mistake_of_ours_is_not_tried_again() -> None:
    one = retrier(NoSleep())
    with pytest.raises(ZeroDivisionError):
        one.call(failing(ZeroDivisionError()))
    assert len(one.attempts) == 1


def test_a_host_never_reached_is_asked_three_times_quickly() -> None:
    stop = NoSleep()
    with pytest.raises(UnreachableError):
        retrier(stop, max_attempts=9).call(failing(*[UnreachableError("no")] * 9))
    assert len(stop.waits) == 2
    assert sum(stop.waits) < 2.5


def test_a_spent_hour_is_waited_out_on_request_and_in_no_haste() -> None:
    # Red without the floor of `base_seconds`: a server that says 0 would be asked as fast as it answers.
    stop = NoSleep()
    errors = [QuotaError("spent", 1800.0), QuotaError("spent", 0.0)]
    assert retrier(stop, waits_for_quota=True).call(failing(*errors)) == "came"
    assert stop.waits == [1800.0, 2.0]


class TestOnceMore:
    """Red without `_is_last`: five requests for an answer in doubt, or an hour's wait."""

    def test_what_is_in_doubt_is_asked_for_after_the_first_wait(self) -> None:
        stop = NoSleep()
        asking = retrier(stop)
        assert asking.call(failing()) == "came"
        assert asking.may_ask_once_more("page 0: 9 of 10 rows came")
        assert 2.0 <= stop.waits[0] <= 3.0
        assert asking.call(failing()) == "came"
        assert not asking.may_ask_once_more("still in doubt")
        assert [attempt.error for attempt in asking.attempts] == ["page 0: 9 of 10 rows came", None]

    @pytest.mark.parametrize("error", [TransientError("no"), QuotaError("spent", 1800.0)])
    def test_and_then_no_further(self, error: MixpanelError) -> None:
        stop = NoSleep()
        asking = retrier(stop, waits_for_quota=True)
        asking.call(failing())
        assert asking.may_ask_once_more("in doubt")
        with pytest.raises(type(error)):
            asking.call(failing(error))
        assert len(stop.waits) == 1

    def test_not_beyond_the_attempts(self) -> None:
        asking = retrier(NoSleep(), max_attempts=2)
        assert asking.call(failing(TransientError("no"))) == "came"
        assert not asking.may_ask_once_more("in doubt")


class TestCancel:
    def test_before_the_first_request(self) -> None:
        stop = threading.Event()
        stop.set()
        with pytest.raises(Cancelled, match="before the request was sent"):
            retrier(stop).call(_unexpected)

    def test_while_waiting(self) -> None:
        """Red when the wait is a sleep: lasts 100 s."""
        stop = threading.Event()
        threading.Timer(0.05, stop.set).start()
        began = time.monotonic()
        with pytest.raises(Cancelled, match="while waiting to try again"):
            retrier(stop).call(failing(TransientError("busy", retry_after=100.0)))
        assert time.monotonic() - began < 50


def _unexpected() -> NoReturn:
    raise AssertionError("a request was sent")


def test_each_attempt_is_remembered_and_told(caplog: pytest.LogCaptureFixture) -> None:
    stop = NoSleep()
    one = retrier(stop)
    with caplog.at_level(logging.WARNING):
        one.call(failing(TransientError("page 3: no"), TransientError("page 3: still no")))
    assert [attempt.error for attempt in one.attempts] == ["page 3: no", "page 3: still no", None]
    assert [attempt.wait_seconds for attempt in one.attempts[:2]] == [round(wait, 3) for wait in stop.waits]
    assert all(attempt.started_at <= attempt.ended_at for attempt in one.attempts)
    assert [record.getMessage() for record in caplog.records] == [
        f"page 3: no; attempt 1 of 5, again in {stop.waits[0]:.1f} s",
        f"page 3: still no; attempt 2 of 5, again in {stop.waits[1]:.1f} s",
    ]
