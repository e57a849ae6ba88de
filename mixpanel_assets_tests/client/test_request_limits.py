"""What one request may take, in seconds and in bytes: each limit against a server that would go on without end."""

import io
import logging
import threading
import time
import tracemalloc
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from mixpanel_assets.client.answer import TooLargeError, TooSlowError
from mixpanel_assets.client.client import MixpanelClient
from mixpanel_assets.client.request_limits import RequestLimits
from mixpanel_assets.client.retry import RetryPolicy
from mixpanel_assets.errors import Cancelled, FatalError, MixpanelError, TransientError
from mixpanel_assets.resources import MixpanelResource
from mixpanel_assets.sandbox import Fault, Limits, Population, Sandbox
from mixpanel_assets.settings import project
from mixpanel_assets.storage.staging import LocalStaging
from mixpanel_assets.streams.events import chunking as event_sync
from mixpanel_assets.streams.events.chunking import Chunk, EventsPlan
from mixpanel_assets.streams.events.fetch import save_export
from mixpanel_assets.streams.events.query import EventsQuery
from mixpanel_assets.streams.profiles.fetch import fetch_page
from mixpanel_assets.streams.profiles.query import ProfileQuery
from mixpanel_assets_tests.tls import CERTIFICATE, sandbox_behind_tls

DAY, NEXT, LAST = "2026-01-01", "2026-01-02", "2026-01-04"
LOG = logging.getLogger(__name__)


@pytest.fixture
def sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    population = Population(profiles=30, events_per_day=20)
    with Sandbox(population, page_size=10, limits=Limits(enforce=False)) as sandbox:
        for name, value in sandbox.environment.items():
            monkeypatch.setenv(name, value)
        yield sandbox


def client_with(stop: threading.Event | None = None, attempts: int = 1, **limits: Any) -> MixpanelClient:
    policy = RetryPolicy(max_attempts=attempts, base_seconds=0.01)
    return MixpanelClient(project(), policy=policy, stop=stop, limits=RequestLimits(**limits))


def page(client: MixpanelClient) -> Any:
    return fetch_page(client, ProfileQuery(), 0, None, client.retrier(LOG))


def events(client: MixpanelClient) -> int:
    return save_export(client, EventsQuery(), DAY, DAY, io.BytesIO(), client.retrier(LOG))


DEADLINES = [(page, "query_deadline_seconds"), (events, "export_deadline_seconds")]


class TestDeadline:
    """Red without RequestWatch: the server holds the request for 30 s, since it is never silent for long."""

    @pytest.mark.parametrize("fault", ["trickle", "trickle-head"])
    @pytest.mark.parametrize(("ask", "setting"), DEADLINES)
    def test_ends_a_request_that_goes_on_for_ever(self, sandbox: Sandbox, fault: str, ask: Any, setting: str) -> None:
        endpoint = "engage" if ask is page else "export"
        sandbox.faults = [Fault(endpoint, fault, times=None, seconds=30)]
        began = time.monotonic()
        with pytest.raises(TooSlowError, match=rf"not answered in full within 0.5 s \({setting}\)") as caught:
            ask(client_with(None, 1, **{setting: 0.5}))
        assert time.monotonic() - began < 5
        assert isinstance(caught.value, TransientError)

    @pytest.mark.parametrize("fault", ["trickle", "trickle-head", "delay"])
    def test_a_run_that_is_to_end_does_not_wait_for_an_answer(self, sandbox: Sandbox, fault: str) -> None:
        sandbox.faults = [Fault("export", fault, times=None, seconds=30)]
        stop = threading.Event()
        threading.Timer(0.5, stop.set).start()
        began = time.monotonic()
        with pytest.raises(Cancelled):
            events(client_with(stop))
        assert time.monotonic() - began < 5

    def test_holds_behind_tls_too(self, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(CERTIFICATE))
        other = Sandbox(Population(30), faults=[Fault("engage", "trickle-head", times=None, seconds=30)])
        with sandbox_behind_tls(other) as url:
            monkeypatch.setenv("MP_QUERY_URL", f"{url}/api/query")
            began = time.monotonic()
            with pytest.raises(TooSlowError):
                page(client_with(query_deadline_seconds=0.5))
        assert time.monotonic() - began < 5

    def test_a_connection_is_used_again_and_not_watched_for_a_request_that_is_over(self, sandbox: Sandbox) -> None:
        """Red when a watch outlives its request: the third page meets the deadline of the first."""
        client = client_with(query_deadline_seconds=1.0)
        for _ in range(4):
            page(client)
            time.sleep(0.5)
        assert sandbox.connections == 1
        client.close()


class TestSilence:
    def test_exports_may_be_silent_for_longer_than_pages(self, sandbox: Sandbox) -> None:
        sandbox.faults = [Fault("export", "delay", seconds=1), Fault("engage", "delay", seconds=1)]
        client = client_with(query_read_timeout_seconds=0.3, export_read_timeout_seconds=5)
        assert events(client) == 20
        with pytest.raises(TooSlowError, match=r"page 0: no answer within 0.3 s \(query_read_timeout_seconds\)"):
            page(client)

    @pytest.mark.parametrize(("fault", "seconds"), [("delay", 5), ("trickle", 40)])
    def test_a_range_of_several_days_is_halved(
        self, sandbox: Sandbox, tmp_path: Path, fault: str, seconds: float
    ) -> None:
        """Red when a timeout is an error of the network like another: the same range is asked for five times."""
        sandbox.faults = [Fault("export", fault, from_date=DAY, seconds=seconds)]
        client = client_with(attempts=5, export_read_timeout_seconds=0.5)
        plan = EventsPlan("run", (Chunk(DAY, LAST, EventsQuery()),), datetime.now(timezone.utc))
        result = event_sync.fetch_chunk(client, LocalStaging(tmp_path), plan.order(0), LOG)
        assert result.came, result.error
        assert [(part.from_date, part.to_date) for part in result.ranges] == [(DAY, NEXT), ("2026-01-03", LAST)]
        assert len(sandbox.journal.requests) <= 3


class TestSize:
    @pytest.mark.parametrize(
        ("ask", "fault", "limits", "says"),
        [
            (page, "huge-page:30", {"max_page_mb": 10}, r"page 0: the answer is larger than 10 MB: .*max_page_mb"),
            (events, "huge-line:30", {"max_line_mb": 10}, r"line 1 is longer than 10 MB: .*max_line_mb"),
            (events, "huge-export:30", {"max_export_mb": 10}, r"larger than 10 MB: .*max_export_mb"),
        ],
    )
    def test_an_answer_beyond_it_is_refused_while_it_comes_and_not_asked_for_again(
        self, sandbox: Sandbox, ask: Any, fault: str, limits: dict[str, int], says: str
    ) -> None:
        sandbox.faults = [Fault("engage" if ask is page else "export", fault, times=None)]
        with pytest.raises(TooLargeError, match=says) as caught:
            ask(client_with(None, 3, **limits))
        assert isinstance(caught.value, FatalError)
        assert "\n" not in str(caught.value)
        assert len(sandbox.journal.requests) <= 1

    @pytest.mark.parametrize("ask", [page, events])
    def test_a_chunk_of_size_minus_one_is_not_read_to_the_end(self, sandbox: Sandbox, ask: Any) -> None:
        """Red without `_safe_read`: 100 MB came at once, before any limit was looked at."""
        sandbox.faults = [Fault("engage" if ask is page else "export", "huge-chunk:100", times=None)]
        tracemalloc.start()
        try:
            with pytest.raises(TransientError, match="the connection broke off"):
                ask(client_with(max_page_mb=5, max_export_mb=5, max_line_mb=5))
            assert tracemalloc.get_traced_memory()[1] < 20e6
        finally:
            tracemalloc.stop()

    @pytest.mark.parametrize("ask", [page, events])
    def test_what_is_allowed_comes(self, sandbox: Sandbox, ask: Any) -> None:
        try:
            ask(client_with(max_page_mb=1, max_export_mb=1, max_line_mb=1))
        except MixpanelError as error:
            pytest.fail(str(error))


def test_the_settings_reach_the_client() -> None:
    sevens: dict[str, Any] = dict.fromkeys(RequestLimits.__dataclass_fields__, 7)
    assert MixpanelResource()._limits() == RequestLimits()
    assert MixpanelResource(**sevens)._limits() == RequestLimits(**sevens)


@pytest.mark.parametrize("ask", [page, events])
def test_a_body_that_breaks_off_is_not_quoted(sandbox: Sandbox, ask: Any) -> None:
    """Red with urllib3's own words: they quote what stands where a chunk's size should, the first line of the body."""
    sandbox.faults = [Fault("engage" if ask is page else "export", "no-chunks", times=None)]
    with pytest.raises(TransientError, match=r": the connection broke off: a chunk has no size$"):
        ask(client_with())
