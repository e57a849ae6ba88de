"""What the sandbox does wrong on request: answers, pages, bytes on the wire.

Every guard named in a comment "red without" was removed once, and the test seen to fail.
"""

import gzip
import http.client
import json
import time
from typing import Any

import pytest

from mixpanel_assets.sandbox import Fault
from mixpanel_assets.sandbox.faults import KINDS
from mixpanel_assets_tests.sandbox.caller import DAY, Caller

pytestmark = pytest.mark.unit


def with_fault(caller: Caller, do: str, **fields: Any) -> None:
    caller.sandbox.faults = [Fault("engage", do, **fields)]


class TestFaultsThatAnswer:
    @pytest.mark.parametrize(
        ("do", "status", "kind", "words"),
        [
            ("status:503", 503, "text/html", b"503 Service"),
            ("status:502", 502, "text/html", b"502 Bad"),
            ("status:500", 500, "application/json", b"Internal server error"),
            ("status:401", 401, "application/json", b"Invalid or expired"),
            ("status:402", 402, "application/json", b"Your plan does not allow API calls"),
            ("status:403", 403, "application/json", b"permission"),
            ("limited:window", 429, "application/json", b"61/60 queries running in the last hour"),
            ("limited:concurrency", 429, "application/json", b"6/5 queries running concurrently"),
            ("limited:shedding", 429, "application/json", b"Query rate limit exceeded"),
            ("timeout-error", 400, "application/json", b"Timeout Error."),
            ("auth-error", 400, "application/json", b"Unable to authenticate request"),
            ("date-error", 400, "application/json", b"to_date cannot be later than today"),
            ("session-lost", 400, "application/json", b"uncached query"),
            ("json-error-200", 200, "application/json", b'"error"'),
            ("not-json", 200, "text/html", b"<html>"),
        ],
    )
    def test_once_then_the_truth(self, caller: Caller, do: str, status: int, kind: str, words: bytes) -> None:
        with_fault(caller, do)
        answer = caller.engage(page=0)
        assert (answer.status, answer.headers["Content-Type"]) == (status, kind)
        assert words in answer.body
        assert caller.engage(page=0).json["total"] == 25
        assert [row.fault for row in caller.sandbox.journal.requests] == [do, None]

    def test_body_headers_and_retry_after_can_be_given(self, caller: Caller) -> None:
        with_fault(caller, "status:503", body="busy", headers={"X-Why": "test"}, retry_after=7)
        answer = caller.engage(page=0)
        assert (answer.body, answer.headers["X-Why"], answer.headers["Retry-After"]) == (b"busy", "test", "7")

    def test_shedding_names_no_limit_and_the_window_does(self, caller: Caller) -> None:
        with_fault(caller, "limited:shedding")
        answer = caller.engage(page=0)
        assert "RateLimit" not in answer.headers
        assert "Retry-After" not in answer.headers
        with_fault(caller, "limited:window", retry_after=120)
        answer = caller.engage(page=0)
        assert answer.headers["RateLimit"].startswith('"project";r=0;t=120,')
        assert answer.headers["Retry-After"] == "120"

    def test_a_lost_session_stays_lost(self, caller: Caller) -> None:
        session = caller.engage(page=0).json["session_id"]
        with_fault(caller, "session-lost", page=1)
        assert [caller.engage(page=page, session_id=session).status for page in (2, 1, 2)] == [200, 400, 400]

    def test_page_date_after_and_times_choose_the_request(self, caller: Caller) -> None:
        with_fault(caller, "status:500", page=1, after=1, times=2)
        session = caller.engage(page=0).json["session_id"]
        assert [caller.engage(page=1, session_id=session).status for _ in range(4)] == [200, 500, 500, 200]
        assert caller.engage(page=2, session_id=session).status == 200
        caller.sandbox.faults = [Fault("export", "status:500", from_date=DAY, times=None)]
        assert [caller.export(day).status for day in ("2024-01-01", DAY, DAY)] == [200, 500, 500]

    def test_a_delay_is_late_and_true(self, caller: Caller) -> None:
        with_fault(caller, "delay", seconds=0.2)
        started = time.monotonic()
        assert caller.engage(page=0).json["total"] == 25
        assert time.monotonic() - started >= 0.2

    @pytest.mark.parametrize(
        "bad",
        [
            {"endpoint": "engage", "do": "explode"},
            {"endpoint": "jql", "do": "drop"},
            {"endpoint": "engage", "do": "status"},
            {"endpoint": "engage", "do": "limited:soon"},
            {"endpoint": "export", "do": "empty-page"},
            {"endpoint": "engage", "do": "drop", "when": 3},
        ],
    )
    def test_a_script_that_means_nothing_is_refused(self, bad: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=r"fault|endpoint|need"):
            Fault.from_dict(bad)


class TestFaultsOfPages:
    @pytest.fixture
    def page(self, caller: Caller) -> Any:
        """Page 1 under a fault, as a function of the fault."""
        session = caller.engage(page=0).json["session_id"]

        def ask(do: str) -> Any:
            with_fault(caller, do, page=1)
            return caller.engage(page=1, session_id=session).json

        return ask

    @pytest.fixture
    def everyone(self, caller: Caller) -> list[str]:
        return [who for who, _ in caller.sandbox.population.profiles()]

    def ids(self, page: Any) -> list[Any]:
        return [row["$distinct_id"] for row in page["results"]]

    def test_rows_that_lie(self, page: Any, everyone: list[str]) -> None:
        assert "results" not in page("no-results")
        assert ["$distinct_id" in row for row in page("rows-without-id:2")["results"]] == [False] * 2 + [True] * 8
        assert page("rows-not-objects")["results"][:3] == [7, "text", None]
        assert page("empty-page")["results"] == []
        assert self.ids(page("short-page:4")) == everyone[10:16]
        assert self.ids(page("repeated-page")) == everyone[:10]
        assert self.ids(page("repeated-page:2")) == everyone[20:]
        assert self.ids(page("duplicate-rows:2")) == [*everyone[8:10], *everyone[10:20]]
        assert self.ids(page("repeated-rows:2")) == [*everyone[8:10], *everyone[12:20]]

    def test_figures_that_lie(self, page: Any, everyone: list[str]) -> None:
        assert page("total:growing")["total"] == 1026
        assert page("total:shrinking")["total"] == 0
        assert page("total:12")["total"] == 12
        assert "total" not in page("total:missing")
        changed = page("page-size:5")
        assert (changed["page_size"], self.ids(changed)) == (5, everyone[5:10])

    def test_members_that_lie(self, page: Any) -> None:
        session = page("session:number")["session_id"]
        assert isinstance(session, int)
        assert page("session:other")["session_id"].startswith(f"{session}-")
        assert page("session:null")["session_id"] is None
        assert page("session:empty")["session_id"] == ""
        assert len(page("session:long")["session_id"]) == 1_000_000
        assert "session_id" not in page("session:missing")
        assert (page("page-number:7")["page"], page("project:8")["project_id"]) == (7, 8)
        assert set(page("only-results")) == {"results", "status"}

    def test_a_session_is_known_by_its_number_too(self, caller: Caller) -> None:
        with_fault(caller, "session:number")
        number = str(caller.engage(page=0).json["session_id"])
        assert caller.engage(page=1, session_id=number).status == 200

    def test_the_total_of_page_0_can_be_missing(self, caller: Caller) -> None:
        with_fault(caller, "total:missing")
        assert "total" not in caller.engage(page=0).json


class TestFaultsOnTheWire:
    def head_and_body(self, raw: bytes) -> tuple[str, bytes]:
        head, _, body = raw.partition(b"\r\n\r\n")
        return head.decode().lower(), body

    def test_dropped_before_any_header(self, caller: Caller) -> None:
        with_fault(caller, "drop")
        assert caller.raw_engage() == (b"", False)
        assert caller.sandbox.journal.requests[-1].status == 0

    def test_reset_amid_the_body(self, caller: Caller) -> None:
        with_fault(caller, "reset")
        raw, reset = caller.raw_engage()  # red without SO_LINGER: the end is then an orderly one
        assert reset
        assert b"page_size" in raw or raw == b""

    def test_a_body_shorter_than_its_length(self, caller: Caller) -> None:
        with_fault(caller, "short-body", keep=0.9)
        head, body = self.head_and_body(caller.raw_engage()[0])
        length = int(head.split("content-length: ")[1].split("\r\n")[0])
        assert len(body) == int(length * 0.9)

    def test_a_length_that_is_none(self, caller: Caller) -> None:
        with_fault(caller, "bad-length", keep=1.0)
        head, body = self.head_and_body(caller.raw_engage()[0])
        assert head.endswith("content-length: -1")
        assert json.loads(body)["total"] == 25

    def test_two_lengths_that_differ(self, caller: Caller) -> None:
        with_fault(caller, "two-lengths")
        head, body = self.head_and_body(caller.raw_engage()[0])
        lengths = [int(line.split(": ")[1]) for line in head.split("\r\n") if line.startswith("content-length")]
        assert sorted(lengths) == [len(body), len(body) + 1]

    def test_chunks_without_the_last(self, caller: Caller) -> None:
        with_fault(caller, "no-final-chunk")
        head, body = self.head_and_body(caller.raw_engage()[0])
        size, _, rest = body.partition(b"\r\n")
        assert "transfer-encoding: chunked" in head
        assert rest == rest[: int(size, 16)] + b"\r\n"

    def test_a_chunk_of_negative_size(self, caller: Caller) -> None:
        with_fault(caller, "bad-chunk")
        head, body = self.head_and_body(caller.raw_engage()[0])
        assert "transfer-encoding: chunked" in head
        assert body.endswith(b"\r\n-5\r\n")

    def test_a_body_that_says_it_is_chunked_and_is_not(self, caller: Caller) -> None:
        with_fault(caller, "no-chunks")
        head, body = self.head_and_body(caller.raw_engage()[0])
        assert "transfer-encoding: chunked" in head
        assert body.startswith(b'{"page"')

    def test_a_huge_chunk_of_size_minus_one(self, caller: Caller) -> None:
        with_fault(caller, "huge-chunk:2")
        head, body = self.head_and_body(caller.raw_engage()[0])
        assert "transfer-encoding: chunked" in head
        assert body == b"-1\r\n" + b" " * 2_000_000

    def test_no_framing_at_all(self, caller: Caller) -> None:
        with_fault(caller, "no-framing", keep=1.0)
        head, body = self.head_and_body(caller.raw_engage()[0])
        assert "content-length" not in head
        assert "transfer-encoding" not in head
        assert json.loads(body)["total"] == 25

    def test_gzip_cut_inside_good_framing(self, caller: Caller) -> None:
        caller.sandbox.faults = [Fault("export", "gzip-cut")]
        answer = caller.export()
        assert answer.headers["Content-Encoding"] == "gzip"
        assert len(answer.body) == int(answer.headers["Content-Length"])
        with pytest.raises(EOFError):
            gzip.decompress(answer.body)

    def test_lines_that_stop(self, caller: Caller) -> None:
        whole = caller.export().body
        cases = {"line-cut": b"", "terminated-early": b"terminated early\n"}
        for do, last in cases.items():
            caller.sandbox.faults = [Fault("export", do)]
            body = caller.export().body
            kept = body.removesuffix(last)
            assert body.endswith(last)
            assert whole.startswith(kept)
            assert kept.endswith(b"}\n")
            assert len(kept) <= len(whole) / 2
        caller.sandbox.faults = [Fault("export", "error-line")]
        assert "error" in json.loads(caller.export().body.split(b"\n")[-2])
        caller.sandbox.faults = [Fault("export", "cut", keep=0.501)]
        cut = caller.export().body
        assert cut == whole[: int(len(whole) * 0.501)]
        assert not cut.endswith(b"\n")

    def test_a_trickle_is_slow_and_whole(self, caller: Caller) -> None:
        with_fault(caller, "trickle", seconds=0.3)
        started = time.monotonic()
        assert caller.engage(page=0).json["total"] == 25
        assert time.monotonic() - started >= 0.3

    @pytest.mark.parametrize("endpoint", ["engage", "export"])
    def test_every_kind_runs_without_a_mistake_of_the_sandbox(self, caller: Caller, endpoint: str) -> None:
        huge = {kind: f"{kind}:3" for kind in KINDS if kind.startswith("huge")}
        argued = {
            **huge,
            "status": "status:418",
            "limited": "limited:window",
            "total": "total:5",
            "page-size": "page-size:3",
        }
        for kind in sorted(KINDS):
            try:
                caller.sandbox.faults = [Fault(endpoint, argued.get(kind, kind), seconds=0.01)]
            except ValueError:
                continue
            path = caller.export_path() if endpoint == "export" else None
            try:
                caller.call("GET", path) if path else caller.engage(page=0)
            except (http.client.HTTPException, ConnectionError, ValueError):
                assert kind in {
                    "drop",
                    "reset",
                    "short-body",
                    "no-final-chunk",
                    "bad-chunk",
                    "no-chunks",
                    "huge-chunk",
                    "two-lengths",
                }
        assert caller.sandbox.errors == []
