"""The limits of the sandbox, and what it says when they are reached.

Every guard named in a comment "red without" was removed once, and the test seen to fail.
"""

import threading
import time
from dataclasses import dataclass

import pytest

from mixpanel_assets.sandbox import Fault, Limits, Population, Sandbox
from mixpanel_assets.sandbox.limits import RateLimiter
from mixpanel_assets.sandbox.replies import Refused
from mixpanel_assets_tests.sandbox.caller import Answer, Caller

pytestmark = pytest.mark.unit


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def enter_and_leave(limiter: RateLimiter, endpoint: str) -> None:
    limiter.enter(endpoint, "/", counted=True)
    limiter.leave(endpoint, 200, counted=True)


class TestLimits:
    def test_only_page_0_counts_and_the_window_says_how_long(self) -> None:
        with Sandbox(Population(profiles=40), page_size=10, limits=Limits(queries_per_hour=2)) as sandbox:
            caller = Caller(sandbox)
            session = caller.engage(page=0).json["session_id"]
            assert [caller.engage(page=page, session_id=session).status for page in (1, 2, 3)] == [200] * 3
            assert caller.engage(page=0).status == 200
            answer = caller.engage(page=0)
            assert answer.status == 429
            assert "(3/2 queries running in the last hour)" in answer.json["error"]
            wait = int(answer.headers["Retry-After"])
            assert 3590 < wait <= 3600
            assert answer.headers["RateLimit"] == f'"project";r=0;t={wait}, "project-concurrency";r=5'
            policy = '"project";q=2;w=3600, "project-concurrency";q=5;qu="concurrent-requests"'
            assert answer.headers["RateLimit-Policy"] == policy
            assert caller.engage(page=1, session_id=session).status == 200

    def test_session_pages_count_by_choice(self) -> None:
        limits = Limits(queries_per_hour=2, count_session_pages=True)
        with Sandbox(Population(profiles=40), page_size=10, limits=limits) as sandbox:
            session = Caller(sandbox).engage(page=0).json["session_id"]
            answers = [Caller(sandbox).engage(page=page, session_id=session).status for page in (1, 2)]
            assert answers == [200, 429]

    def test_the_window_rolls(self) -> None:
        clock = Clock()
        limiter = RateLimiter(Limits(queries_per_hour=2, window_seconds=3600), "1", clock)
        for clock.now in (0.0, 1000.0):
            enter_and_leave(limiter, "engage")
        clock.now = 3599.0
        with pytest.raises(Refused) as refused:
            limiter.enter("engage", "/", counted=True)
        assert refused.value.reply.headers["Retry-After"] == "1"
        clock.now = 3600.0
        enter_and_leave(limiter, "engage")
        with pytest.raises(Refused) as refused:
            limiter.enter("engage", "/", counted=True)
        assert refused.value.reply.headers["Retry-After"] == "1000"

    def test_three_exports_a_second(self) -> None:
        clock = Clock()
        limiter = RateLimiter(Limits(), "1", clock)
        for clock.now in (0.0, 0.3, 0.6, 0.91, 1.21):
            enter_and_leave(limiter, "export")
        clock.now = 1.49
        with pytest.raises(Refused):
            limiter.enter("export", "/", counted=True)

    def test_refused_requests_are_not_counted(self, caller: Caller) -> None:
        caller.sandbox.limits = Limits(queries_per_hour=2)
        caller.sandbox.faults = [Fault("engage", "limited:window", times=5)]
        assert [caller.engage(page=0).status for _ in range(8)] == [429] * 5 + [200, 200, 429]

    def test_concurrency_is_seen_refused_and_told(self) -> None:
        with Sandbox(latency=1.5, limits=Limits(concurrent_queries=2)) as sandbox:
            answers: list[Answer] = []
            threads = [
                threading.Thread(target=lambda: answers.append(Caller(sandbox).engage(page=0))) for _ in range(2)
            ]
            for thread in threads:
                thread.start()
            while len(sandbox.journal.starts("engage")) < 2:
                time.sleep(0.005)
            answers.append(Caller(sandbox).engage(page=0))
            for thread in threads:
                thread.join()
            refused = next(answer for answer in answers if answer.status == 429)
            assert sorted(answer.status for answer in answers) == [200, 200, 429]
            assert "(3/2 queries running concurrently)" in refused.json["error"]
            assert refused.headers["RateLimit"] == '"project";r=58, "project-concurrency";r=0;t=10'
            assert refused.headers["Retry-After"] == "10"
            assert sandbox.journal.max_in_flight("engage") == 3

    def test_refused_exports(self) -> None:
        with Sandbox(Population(events_per_day=1), limits=Limits(exports_per_second=0)) as sandbox:
            answer = Caller(sandbox).export()
            assert answer.status == 429
            assert answer.json == {"error": "too many export requests in progress for this project"}
        with Sandbox(Population(events_per_day=1), limits=Limits(exports_per_hour=1)) as sandbox:
            assert [Caller(sandbox).export().status for _ in range(2)] == [200, 429]

    def test_clear_empties_the_windows(self) -> None:
        with Sandbox(limits=Limits(queries_per_hour=1)) as sandbox:
            for _ in range(2):
                assert Caller(sandbox).engage(page=0).status == 200
                sandbox.clear()

    def test_limits_can_be_only_observed(self) -> None:
        with Sandbox(limits=Limits(queries_per_hour=1, enforce=False)) as sandbox:
            assert [Caller(sandbox).engage(page=0).status for _ in range(3)] == [200] * 3
