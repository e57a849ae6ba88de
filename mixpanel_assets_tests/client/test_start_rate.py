"""When an export may start: no more than three within a second, over all processes."""

import io
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import urllib3

from mixpanel_assets.client.client import MixpanelClient
from mixpanel_assets.client.start_rate import MOST_STARTS, WINDOW_SECONDS, StartRate
from mixpanel_assets.errors import Cancelled, ConfigurationError
from mixpanel_assets.sandbox import Limits, Population, Sandbox
from mixpanel_assets.settings import project
from mixpanel_assets.streams.events.fetch import save_export
from mixpanel_assets.streams.events.query import EventsQuery

pytestmark = pytest.mark.unit


class TestStartRate:
    class Stop(threading.Event):
        """Waiting moves a clock instead of taking time."""

        def __init__(self) -> None:
            super().__init__()
            self.now = 1000.0

        def wait(self, timeout: float | None = None) -> bool:
            self.now += timeout or 0
            return False

    @pytest.mark.parametrize("shared", [True, False])
    def test_three_start_within_a_second_and_no_more(self, tmp_path: Path, *, shared: bool) -> None:
        """Red with MOST_STARTS + 1 in the look back."""
        stop = self.Stop()
        file = tmp_path / "starts" if shared else None
        # With a file, two rates are two processes; without, one is all there is.
        rates = [StartRate(file, lambda: stop.now) for _ in range(2 if shared else 1)]
        starts = []
        for number in range(20):
            with rates[number % len(rates)].turn(stop):
                stop.now += 0.3 if number == 7 else 0.01  # put aside amid its start
                starts.append(stop.now)
        assert all(later - earlier >= 1.0 for earlier, later in zip(starts, starts[MOST_STARTS:], strict=False))
        assert starts[-1] - starts[0] < 7 * (WINDOW_SECONDS + 0.1)

    def test_a_machine_that_wakes_late_leaves_more_room(self, tmp_path: Path) -> None:
        """Red without `late`: under load a request may arrive as late as its thread woke."""
        stop = self.Stop()
        wait, lateness = stop.wait, 0.2
        stop.wait = lambda timeout=None: wait((timeout or 0) + lateness)  # type: ignore[method-assign]
        rate = StartRate(tmp_path / "starts", lambda: stop.now)
        starts = []
        for _ in range(9):
            with rate.turn(stop):
                starts.append(stop.now)
        assert starts[6] - starts[3] == pytest.approx(WINDOW_SECONDS + 2 * lateness)

    def test_a_start_is_noted_when_the_request_leaves_and_not_before_its_connection(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Red without the turn: with connections that take 0 to 0.9 s to open, five and more arrive in a second."""
        connect, dice = urllib3.util.connection.create_connection, random.Random(5)

        def slow(*arguments: Any, **options: Any) -> Any:
            time.sleep(dice.uniform(0, 0.9))
            return connect(*arguments, **options)

        monkeypatch.setattr(urllib3.util.connection, "create_connection", slow)
        with Sandbox(Population(events_per_day=1), limits=Limits(enforce=False)) as sandbox:
            for name, value in sandbox.environment.items():
                monkeypatch.setenv(name, value)
            # One per request, so that none finds a connection open.
            clients = [MixpanelClient(project(), export_starts=StartRate(tmp_path / "s")) for _ in range(12)]
            with ThreadPoolExecutor(12) as threads:
                for client in clients:
                    threads.submit(save_export, client, EventsQuery(), "2026-01-01", "2026-01-01", io.BytesIO())
            starts = sandbox.journal.starts("export")
            for client in clients:
                client.close()
        assert len(starts) == 12
        assert min(later - earlier for earlier, later in zip(starts, starts[MOST_STARTS:], strict=False)) >= 1.0

    def test_a_clock_set_back_makes_nobody_wait_for_long(self, tmp_path: Path) -> None:
        stop = self.Stop()
        rate = StartRate(tmp_path / "starts", lambda: stop.now)
        for _ in range(MOST_STARTS):
            with rate.turn(stop):
                pass
        stop.now = 10.0
        with rate.turn(stop):
            pass
        # Red without the bound of the wait.
        assert stop.now <= 10.0 + WINDOW_SECONDS + 0.5

    def test_a_cancel_ends_the_wait(self) -> None:
        stop = threading.Event()
        stop.set()
        with pytest.raises(Cancelled), StartRate().turn(stop):
            pass

    @pytest.mark.parametrize("content", ["[1, 2", "", "{}", '"x"', "[null]"])
    def test_starts_that_cannot_be_read_were_a_moment_ago(self, tmp_path: Path, content: str) -> None:
        """Red when they count as none: a process that is killed amid its note would let three more go at once."""
        stop = self.Stop()
        (tmp_path / "starts").write_text(content)
        began = stop.now
        with StartRate(tmp_path / "starts", lambda: stop.now).turn(stop):
            assert stop.now >= began + (1 if content != "{}" else 0)

    def test_a_place_that_cannot_be_written_is_no_fault_of_the_network(self, tmp_path: Path) -> None:
        """Red without `_usable`: five attempts, and "the connection failed"."""
        (tmp_path / "home").write_text("a file")
        turn = StartRate(tmp_path / "home" / "starts").turn(threading.Event())
        with pytest.raises(ConfigurationError, match=r"cannot use .*set DAGSTER_HOME"), turn:
            pass
