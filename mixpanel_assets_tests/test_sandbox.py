"""The sandbox, checked with raw sockets and http.client: never with the project's own client.

Belongs here: shapes, paging, sessions, limits, faults on the wire, the journal. Not here: how the client copes.
Every guard named in a comment "red without" was removed once, and the test seen to fail.
"""

import base64
import gzip
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

from mixpanel_assets.sandbox import GROUP_ID, Fault, Limits, Population, Sandbox
from mixpanel_assets.sandbox.expressions import BadExpression, members, predicate
from mixpanel_assets.sandbox.faults import KINDS
from mixpanel_assets.sandbox.limits import Gate
from mixpanel_assets.sandbox.replies import Refused
from mixpanel_assets.sandbox.server import Call

DAY = "2024-01-02"


@dataclass
class Answer:
    status: int
    headers: Message
    body: bytes

    @property
    def text(self) -> bytes:
        return gzip.decompress(self.body) if self.headers.get("Content-Encoding") == "gzip" else self.body

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def ids(self) -> list[Any]:
        return [row["$distinct_id"] for row in self.json["results"]]


@dataclass
class Caller:
    sandbox: Sandbox

    def headers(self) -> dict[str, str]:
        env = self.sandbox.environment
        basic = base64.b64encode(f"{env['MP_USERNAME']}:{env['MP_SECRET']}".encode()).decode()
        return {"Authorization": f"Basic {basic}"}

    def call(self, method: str, path: str, body: str | None = None, headers: Mapping[str, str] | None = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", urlsplit(self.sandbox.url).port or 0, timeout=20)
        try:
            connection.request(method, path, body, {**self.headers(), **(headers or {})})
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def engage(self, headers: Mapping[str, str] | None = None, **params: Any) -> Answer:
        path = f"/api/query/engage?project_id={self.sandbox.project_id}"
        return self.call("POST", path, urlencode(params), headers)

    def export_path(self, from_date: str = DAY, to_date: str | None = None, **more: Any) -> str:
        days = {"from_date": from_date, "to_date": to_date or from_date}
        return "/api/2.0/export?" + urlencode({**days, "project_id": self.sandbox.project_id, **more})

    def export(self, *args: Any, headers: Mapping[str, str] | None = None, **more: Any) -> Answer:
        return self.call("GET", self.export_path(*args, **more), headers=headers)

    def raw(self, path: str) -> tuple[bytes, bool]:
        """Everything a socket gets until the end, and whether the end was a reset."""
        with socket.create_connection(("127.0.0.1", urlsplit(self.sandbox.url).port or 0), timeout=20) as connection:
            lines = [f"GET {path} HTTP/1.1", "Host: x", *(f"{k}: {v}" for k, v in self.headers().items()), "", ""]
            connection.sendall("\r\n".join(lines).encode())
            received = b""
            try:
                while block := connection.recv(65536):
                    received += block
            except ConnectionResetError:
                return received, True
            return received, False

    def raw_engage(self) -> tuple[bytes, bool]:
        return self.raw(f"/api/query/engage?project_id={self.sandbox.project_id}&page=0")


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    # Only TestLimits is about limits: the other tests may export as fast as they like.
    population = Population(profiles=25, events_per_day=40, group_profiles=4)
    with Sandbox(population, page_size=10, limits=Limits(enforce=False)) as running:
        yield running
        assert running.errors == []


@pytest.fixture
def caller(sandbox: Sandbox) -> Caller:
    return Caller(sandbox)


def all_ids(caller: Caller, **params: Any) -> list[Any]:
    first = caller.engage(page=0, **params).json
    pages = -(-first["total"] // first["page_size"])
    rest = [caller.engage(page=page, session_id=first["session_id"]).json["results"] for page in range(1, pages)]
    return [row["$distinct_id"] for rows in [first["results"], *rest] for row in rows]


class TestEngage:
    def test_a_page_has_the_documented_shape(self, caller: Caller) -> None:
        answer = caller.engage(page=0)
        assert answer.status == 200
        assert set(answer.json) == {"page", "page_size", "results", "session_id", "status", "total"}
        assert (answer.json["page"], answer.json["page_size"], answer.json["total"]) == (0, 10, 25)
        assert answer.json["status"] == "ok"
        assert set(answer.json["results"][0]) == {"$distinct_id", "$properties"}

    def test_pages_hold_everyone_once_and_in_any_order(self, caller: Caller) -> None:
        session = caller.engage(page=0).json["session_id"]
        served = [caller.engage(page=page, session_id=session) for page in (2, 0, 1)]
        ids = served[1].ids + served[2].ids + served[0].ids
        assert ids == [distinct_id for distinct_id, _ in caller.sandbox.population.profiles()]
        assert caller.engage(page=3, session_id=session).json["results"] == []

    def test_rows_are_served_byte_for_byte(self, caller: Caller) -> None:
        body = caller.engage(page=0).body.decode()
        for distinct_id, properties in list(caller.sandbox.population.profiles())[:10]:
            assert f'{{"$distinct_id":"{distinct_id}","$properties":{properties}}}' in body

    def test_total_is_on_page_0_only_unless_asked(self, caller: Caller) -> None:
        session = caller.engage(page=0).json["session_id"]
        assert "total" not in caller.engage(page=1, session_id=session).json
        with Sandbox(Population(profiles=3), page_size=2, total_on_all_pages=True) as other:
            session = Caller(other).engage(page=0).json["session_id"]
            assert Caller(other).engage(page=1, session_id=session).json["total"] == 3

    def test_a_session_is_frozen(self, caller: Caller) -> None:
        population = caller.sandbox.population
        before = [distinct_id for distinct_id, _ in population.profiles()]
        session = caller.engage(page=0).json["session_id"]
        population.add("new", {"plan": "pro"})
        population.remove(before[20])
        assert caller.engage(page=2, session_id=session).ids == before[20:]
        assert [distinct_id for distinct_id, _ in caller.sandbox.served(session).profiles()] == before
        assert all_ids(caller) == [*before[:20], *before[21:], "new"]

    def test_a_replaced_profile_is_served_as_replaced(self, caller: Caller) -> None:
        wanted = next(caller.sandbox.population.profiles())[0]
        caller.sandbox.population.replace(wanted, '{"price":1.10}')
        assert b'"$properties":{"price":1.10}' in caller.engage(page=0).body
        with pytest.raises(KeyError):
            caller.sandbox.population.replace("nobody", {})

    @pytest.mark.parametrize("session", ["", "unknown"])
    def test_a_later_page_needs_an_open_session(self, caller: Caller, session: str) -> None:
        answer = caller.engage(page=1, session_id=session)
        assert (answer.status, answer.json["error"]) == (400, "request for page in uncached query for params")

    def test_expired_sessions_are_lost(self, caller: Caller) -> None:
        session = caller.engage(page=0).json["session_id"]
        caller.sandbox.expire_sessions()  # red when it leaves them open
        assert caller.engage(page=1, session_id=session).status == 400

    def test_page_size_is_honoured_capped_or_ignored(self, caller: Caller) -> None:
        assert caller.engage(page=0, page_size=7).json["page_size"] == 7
        assert len(caller.engage(page=0, page_size=7).ids) == 7
        with Sandbox(Population(profiles=9), page_size=5, page_size_cap=6) as capped:
            assert Caller(capped).engage(page=0, page_size=100).json["page_size"] == 6
        with Sandbox(Population(profiles=9), page_size=5, ignore_page_size=True) as stubborn:
            assert Caller(stubborn).engage(page=0, page_size=2).json["page_size"] == 5

    def test_where_output_properties_and_distinct_id_choose(self, caller: Caller) -> None:
        rows = [(who, json.loads(text)) for who, text in caller.sandbox.population.profiles()]
        expected = [who for who, row in rows if row["plan"] == "free" and row["sessions"] >= 100]
        where = 'properties["plan"] == "free" and properties["sessions"] >= 100'
        assert 0 < len(expected) < len(rows)
        assert all_ids(caller, where=where, output_properties='["plan","sessions"]') == expected
        answer = caller.engage(page=0, output_properties='["plan","sessions"]')
        assert all(set(row["$properties"]) == {"plan", "sessions"} for row in answer.json["results"])
        assert caller.engage(page=0, distinct_id=rows[3][0]).ids == [rows[3][0]]

    def test_a_cohort_has_its_members_and_ids_without_a_profile(self, caller: Caller) -> None:
        everyone = [who for who, _ in caller.sandbox.population.profiles()]
        cohort = json.dumps({"id": 1001})
        assert all_ids(caller, filter_by_cohort=cohort, include_all_users="false") == everyone[::3]
        with_ghosts = all_ids(caller, filter_by_cohort=cohort)
        assert with_ghosts[:9] == everyone[::3]
        assert len(with_ghosts) == 12
        assert caller.engage(page=0, filter_by_cohort='{"id":5}').status == 400

    def test_a_group_has_profiles_of_its_own(self, caller: Caller) -> None:
        groups = all_ids(caller, data_group_id=GROUP_ID)
        assert groups == [who for who, _ in caller.sandbox.population.groups[GROUP_ID].profiles()]
        assert caller.engage(page=0, data_group_id="1").json["total"] == 0

    @pytest.mark.parametrize(
        "params", [{"where": "properties[plan]"}, {"where": "("}, {"output_properties": "["}, {"page": "-1"}]
    )
    def test_nonsense_is_a_400_in_json(self, caller: Caller, params: dict[str, str]) -> None:
        answer = caller.engage(None, **{"page": "0", **params})
        assert answer.status == 400
        assert set(answer.json) == {"request", "error"}

    def test_get_json_bodies_and_overriding_work(self, caller: Caller) -> None:
        path = f"/api/query/engage?project_id={caller.sandbox.project_id}&page_size=3"
        assert len(caller.call("GET", path).ids) == 3
        assert len(caller.call("POST", path, json.dumps({"page": 0, "page_size": 4})).ids) == 4
        assert len(caller.call("POST", path, "page=0&page_size=5").ids) == 5

    def test_large_bodies_are_gzipped_when_accepted(self, caller: Caller) -> None:
        zipped = caller.engage({"Accept-Encoding": "gzip, deflate"}, page=0)
        plain = caller.engage(page=0)
        assert zipped.headers["Content-Encoding"] == "gzip"
        assert plain.headers["Content-Encoding"] is None
        assert zipped.json["results"] == plain.json["results"]
        small = caller.engage({"Accept-Encoding": "gzip"}, page=0, page_size=1)
        assert small.headers["Content-Encoding"] is None  # 1400 bytes or less

    def test_a_full_page_is_one_list(self) -> None:
        # Rows are written in blocks of 512: red without the comma between two blocks.
        with Sandbox(Population(profiles=1_030)) as sandbox:
            answer = Caller(sandbox).engage(page=0)
            assert len(set(answer.ids)) == len(answer.ids) == 1_000

    def test_nobody_is_a_page_without_rows(self) -> None:
        with Sandbox(Population(profiles=0)) as empty:
            answer = Caller(empty).engage(page=0)
            assert (answer.json["total"], answer.json["results"]) == (0, [])


class TestCredentials:
    @pytest.mark.parametrize("given", ["", "Basic !!", "Bearer x", "Basic " + base64.b64encode(b"a:b").decode()])
    def test_wrong_ones_are_a_401(self, caller: Caller, given: str) -> None:
        answer = caller.engage({"Authorization": given}, page=0)
        assert answer.status == 401
        assert "error" in answer.json

    @pytest.mark.parametrize("query", ["", "?project_id=99"])
    def test_a_wrong_project_is_a_400(self, caller: Caller, query: str) -> None:
        answer = caller.call("GET", "/api/query/engage" + query)
        assert (answer.status, answer.json["error"]) == (400, "Unable to authenticate request")

    def test_the_journal_holds_no_secret(self, caller: Caller) -> None:
        caller.engage(page=0, secret="sandbox-secret")  # red without the filter of parameters
        caller.call("GET", caller.export_path(secret="sandbox-secret"))
        assert "sandbox-secret" not in caller.call("GET", "/sandbox/journal").body.decode()
        assert caller.sandbox.journal.count() == 2


class TestExport:
    def test_days_are_lines_inclusive_and_as_the_population_tells(self, caller: Caller) -> None:
        answer = caller.export("2024-01-01", "2024-01-03")
        lines = answer.body.decode().split("\n")
        truth = [e for day in ("2024-01-01", DAY, "2024-01-03") for e in caller.sandbox.population.events(day)]
        assert answer.headers["Content-Type"].startswith("text/plain")
        assert lines.pop() == ""
        assert lines == [f'{{"event":"{name}","properties":{properties}}}' for name, properties in truth]
        assert len(lines) == 120
        first = json.loads(lines[0])["properties"]
        assert {"time", "distinct_id", "$insert_id", "mp_processing_time_ms"} <= set(first)
        assert first["time"] == 1704067200

    def test_time_in_ms_and_event_and_where_and_limit(self, caller: Caller) -> None:
        rows = [json.loads(line) for line in caller.export().body.splitlines()]
        name = rows[0]["event"]
        assert json.loads(caller.export(time_in_ms="true").body.splitlines()[0])["properties"]["time"] > 10**12
        named = caller.export(event=json.dumps([name])).body.splitlines()
        assert len(named) == sum(row["event"] == name for row in rows)
        pro = caller.export(where='properties["plan"] == "pro"').body.splitlines()
        assert 0 < len(pro) == sum(row["properties"]["plan"] == "pro" for row in rows)
        assert len(caller.export("2024-01-01", DAY, limit=50).body.splitlines()) == 50

    def test_gzip_is_one_member_over_several_days(self, caller: Caller) -> None:
        zipped = caller.export("2024-01-01", "2024-01-03", headers={"Accept-Encoding": "gzip"})
        unpacker = zlib.decompressobj(31)
        body = unpacker.decompress(zipped.body)
        assert unpacker.eof
        assert unpacker.unused_data == b""
        assert body == caller.export("2024-01-01", "2024-01-03").body

    @pytest.mark.parametrize("chunked", [True, False])
    def test_framing_by_choice(self, *, chunked: bool) -> None:
        with Sandbox(Population(events_per_day=5), chunked=chunked) as sandbox:
            headers = Caller(sandbox).export().headers
            assert (headers["Transfer-Encoding"] == "chunked") is chunked
            assert (headers["Content-Length"] is None) is chunked

    @pytest.mark.parametrize("chunked", [True, False])
    def test_a_day_without_events_is_an_empty_body(self, *, chunked: bool) -> None:
        with Sandbox(Population(events_per_day=5, first_day=DAY), chunked=chunked) as sandbox:
            answer = Caller(sandbox).export("2024-01-01", headers={"Accept-Encoding": "gzip"})
            assert (answer.status, answer.body) == (200, b"")

    def test_the_future_and_bad_dates_are_a_400(self) -> None:
        with Sandbox(today=lambda: DAY, limits=Limits(enforce=False)) as sandbox:
            caller = Caller(sandbox)
            assert caller.export(DAY).status == 200
            future = caller.export(DAY, "2024-01-03")
            assert (future.status, future.json["error"]) == (400, "to_date cannot be later than today")
            for bad in ("2024-1-1", "2024-02-30", "20240102", "2024-W01-1", "", "x"):
                assert caller.export(bad, DAY).status == 400
            assert caller.export(DAY, "2024-01-01").status == 400

    def test_late_and_replaced_events_show_at_once(self, caller: Caller) -> None:
        before = caller.export().body
        caller.sandbox.population.add_events(DAY, [("Late", {"time": 1, "distinct_id": "a"})])
        assert caller.export().body == before + b'{"event":"Late","properties":{"time":1,"distinct_id":"a"}}\n'
        caller.sandbox.population.replace_events(DAY, [])
        assert caller.export().body == b""

    def test_duplicates_keep_their_key_and_some_events_have_no_insert_id(self) -> None:
        population = Population(events_per_day=30, duplicate_every=10, no_insert_id_every=7, event_properties=300)
        rows = [(name, json.loads(text)) for name, text in population.events(DAY)]
        keys = [(name, row["distinct_id"], row["time"], row.get("$insert_id")) for name, row in rows]
        assert len(rows) == 33
        assert len(set(keys)) == 30
        assert len({json.dumps(row) for row in rows}) == 33
        assert sum(key[3] is None for key in set(keys)) == 5
        assert len({name for _, row in rows for name in row if name.startswith("property ")}) == 240

    def test_large_days_come_from_files_as_they_are(self) -> None:
        # 3,000 events are 1.5 MB: above what is kept in memory.
        with Sandbox(Population(events_per_day=3_000)) as sandbox:
            sandbox.warm(DAY)
            body = Caller(sandbox).export(headers={"Accept-Encoding": "gzip"}).text
            truth = "".join(f'{{"event":"{n}","properties":{p}}}\n' for n, p in sandbox.population.events(DAY))
            assert body == truth.encode()


class TestPopulation:
    def test_a_seed_gives_the_same_bytes_and_another_seed_others(self) -> None:
        def content(seed: int) -> tuple[list[Any], list[Any]]:
            population = Population(profiles=30, seed=seed, events_per_day=20, hostile=True)
            return list(population.profiles()), list(population.events(DAY))

        (people, events), (others, other_events) = content(7), content(8)
        assert content(7) == (people, events)
        made_up = {who for who, _ in people if "-4" in who}
        assert len(made_up) > 20
        assert not made_up & {who for who, _ in others}
        assert not set(events) & set(other_events)

    def test_sizes_are_those_of_real_rows(self) -> None:
        population = Population(profiles=200, events_per_day=200)
        assert 600 < sum(len(text) for _, text in population.profiles()) / 200 < 800
        assert 400 < sum(len(text) for _, text in population.events(DAY)) / 200 < 600

    def test_hostile_rows_keep_their_text_on_the_wire(self) -> None:
        with Sandbox(Population(profiles=60, hostile=True, events_per_day=60)) as sandbox:
            body = Caller(sandbox).engage(page=0).body.decode()
            events = Caller(sandbox).export().body.decode()
            for text in (
                "9007199254740993",
                "1e400",
                ":1.10",
                "1E5",
                "\u2028",
                "\\u2028",
                "\u0085",
                "\\u0000",
                "\\ud800",
            ):
                assert text in body
                assert text in events
            for text in ('"":4', '"Name":"a","name":"b"', '"$device:', '"$distinct_id":9007199254740994', '"a.b"'):
                assert text in body
            rows = json.loads(body)["results"]
            assert [str(row["$distinct_id"]) for row in rows] == [who for who, _ in sandbox.population.profiles()]
            assert len({str(row["$distinct_id"]) for row in rows}) == 60

    def test_no_object_has_a_key_twice(self) -> None:
        population = Population(profiles=300, events_per_day=300, hostile=True, event_properties=300)
        texts = [text for _, text in population.profiles()] + [text for _, text in population.events(DAY)]
        for text in texts:
            keys = [key for key, _, _ in members(text)]
            assert len(keys) == len(set(keys))

    def test_bytes_that_are_not_utf8_can_be_served(self) -> None:
        with Sandbox(Population(profiles=0)) as sandbox:
            sandbox.population.add("raw", '{"a":"\udcff"}')
            assert b'{"a":"\xff"}' in Caller(sandbox).engage(page=0).body


class TestExpressions:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ('properties["n"] == 3', True),
            ('properties["n"] != 3 or properties["s"] == "x"', True),
            ('properties["n"] > 2 and not (properties["s"] < "a")', True),
            ('properties["s"] > 2', False),
            ('properties["gone"] == "x"', False),
            ('properties["gone"] == null and properties["b"] == true', True),
            ('properties["q\\"uote"] == 1.5', True),
        ],
    )
    def test_it_holds(self, text: str, *, expected: bool) -> None:
        assert predicate(text)({"n": 3, "s": "x", "b": True, 'q"uote': 1.5}) is expected

    @pytest.mark.parametrize("text", ["", "properties", 'properties["a"]', "1 == ", "1 == 1 1", "(1 == 1", "a == 1"])
    def test_it_is_refused(self, text: str) -> None:
        with pytest.raises(BadExpression):
            predicate(text)


@dataclass
class Clock:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def enter_and_leave(gate: Gate, endpoint: str) -> None:
    gate.enter(endpoint, "/", counted=True)
    gate.leave(endpoint, 200, counted=True)


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
        gate = Gate(Limits(queries_per_hour=2, window_seconds=3600), "1", clock)
        for clock.now in (0.0, 1000.0):
            enter_and_leave(gate, "engage")
        clock.now = 3599.0
        with pytest.raises(Refused) as refused:
            gate.enter("engage", "/", counted=True)
        assert refused.value.reply.headers["Retry-After"] == "1"
        clock.now = 3600.0
        enter_and_leave(gate, "engage")
        with pytest.raises(Refused) as refused:
            gate.enter("engage", "/", counted=True)
        assert refused.value.reply.headers["Retry-After"] == "1000"

    def test_three_exports_a_second(self) -> None:
        clock = Clock()
        gate = Gate(Limits(), "1", clock)
        for clock.now in (0.0, 0.3, 0.6, 0.91, 1.21):
            enter_and_leave(gate, "export")
        clock.now = 1.49
        with pytest.raises(Refused):
            gate.enter("export", "/", counted=True)

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

    def test_figures_that_lie(self, page: Any, everyone: list[str]) -> None:
        assert page("total:growing")["total"] == 1026
        assert page("total:shrinking")["total"] == 0
        assert page("total:12")["total"] == 12
        assert "total" not in page("total:missing")
        changed = page("page-size:5")
        assert (changed["page_size"], self.ids(changed)) == (5, everyone[5:10])

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

    def test_chunks_without_the_last(self, caller: Caller) -> None:
        with_fault(caller, "no-final-chunk")
        head, body = self.head_and_body(caller.raw_engage()[0])
        size, _, rest = body.partition(b"\r\n")
        assert "transfer-encoding: chunked" in head
        assert rest == rest[: int(size, 16)] + b"\r\n"

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
        argued = {"status": "status:418", "limited": "limited:window", "total": "total:5", "page-size": "page-size:3"}
        for kind in sorted(KINDS):
            try:
                caller.sandbox.faults = [Fault(endpoint, argued.get(kind, kind), seconds=0.01)]
            except ValueError:
                continue
            path = caller.export_path() if endpoint == "export" else None
            try:
                caller.call("GET", path) if path else caller.engage(page=0)
            except (http.client.HTTPException, ConnectionError):
                assert kind in {"drop", "reset", "short-body", "no-final-chunk"}
        assert caller.sandbox.errors == []


class TestJournal:
    def test_a_row_per_request_there_when_the_answer_is(self, caller: Caller) -> None:
        answer = caller.engage(page=0)
        row = caller.sandbox.journal.requests[-1]
        assert (row.endpoint, row.method, row.page, row.status, row.rows) == ("engage", "POST", 0, 200, 10)
        assert row.session_id == answer.json["session_id"]
        assert row.size == len(answer.body) == caller.sandbox.journal.bytes_served
        assert row.started <= row.ended
        caller.export()
        row = caller.sandbox.journal.requests[-1]
        assert (row.endpoint, row.from_date, row.to_date, row.rows, row.in_flight) == ("export", DAY, DAY, 40, 1)
        assert len(caller.sandbox.journal.starts("export")) == 1
        assert caller.sandbox.journal.count("engage") == caller.sandbox.journal.count(status=200) - 1 == 1

    def test_a_client_with_five_workers_is_never_seen_as_six(self) -> None:
        # Red when a request leaves the journal after its last byte instead of before; slow leaving makes that certain.
        class SlowToLeave(Sandbox):
            def left(self, call: Call, status: int, rows: int, size: int) -> None:
                time.sleep(0.005)
                super().left(call, status, rows, size)

        with SlowToLeave(Population(profiles=500), page_size=5) as sandbox:
            session = Caller(sandbox).engage(page=0).json["session_id"]
            pages = iter(range(1, 100))
            lock = threading.Lock()

            def work() -> None:
                while True:
                    with lock:
                        page = next(pages, None)
                    if page is None:
                        return
                    assert Caller(sandbox).engage(page=page, session_id=session).status == 200

            workers = [threading.Thread(target=work) for _ in range(5)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
            assert sandbox.journal.count("engage", 200) == 100
            assert 1 <= sandbox.journal.max_in_flight("engage") <= 5

    def test_connections_are_kept_and_closed_at_the_end(self) -> None:
        sandbox = Sandbox(Population(profiles=2))
        with sandbox:
            caller = Caller(sandbox)
            connection = http.client.HTTPConnection("127.0.0.1", urlsplit(sandbox.url).port or 0, timeout=20)
            for _ in range(3):
                connection.request(
                    "GET", f"/api/query/engage?project_id={sandbox.project_id}", headers=caller.headers()
                )
                assert len(connection.getresponse().read()) > 100
            kept = connection.sock
        assert kept.recv(1) == b""  # red without closing in server_close: recv then times out
        connection.close()
        with pytest.raises(RuntimeError, match="not running"):
            _ = sandbox.url


@pytest.mark.skipif(sys.platform == "win32", reason="terminate() cannot be caught on Windows")
def test_the_foreground_ends_on_sigterm_and_leaves_no_file(tmp_path: Path) -> None:
    # Red without the handler: no address is ever printed.
    code = f"""
import os, signal, threading, time
from mixpanel_assets.sandbox import Population, Sandbox

def tell():
    give_up = time.monotonic() + 10
    while signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        time.sleep(0.01)
        if time.monotonic() > give_up:
            os._exit(1)
    print(sandbox.url, flush=True)

sandbox = Sandbox(Population(events_per_day=3_000))
sandbox.warm("{DAY}")
threading.Thread(target=tell, daemon=True).start()
sandbox.serve_forever()
"""
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment, text=True) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        assert list(tmp_path.iterdir()) != []
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=20)
        connection.request("GET", "/sandbox/journal")
        assert connection.getresponse().status == 200
        connection.close()
        process.terminate()
        assert process.wait(20) == 0
    assert list(tmp_path.iterdir()) == []


class TestControl:
    def test_another_process_can_script_read_expire_and_clear(self, caller: Caller) -> None:
        script = json.dumps([{"endpoint": "engage", "do": "status:500"}])
        assert caller.call("POST", "/sandbox/faults", script, {"Authorization": ""}).status == 200
        assert [caller.engage(page=0).status for _ in range(2)] == [500, 200]
        told = caller.call("GET", "/sandbox/journal").json
        assert [row["fault"] for row in told["requests"]] == ["status:500", None]
        assert told["max_in_flight"] == {"engage": 1, "export": 0}
        session = told["requests"][1]["session_id"]
        caller.call("POST", "/sandbox/expire-sessions")
        assert caller.engage(page=1, session_id=session).status == 400
        caller.call("POST", "/sandbox/clear")
        assert caller.sandbox.journal.requests == []

    @pytest.mark.parametrize("body", ["", "{}", "[1]", '[{"endpoint":"engage","do":"explode"}]', '[{"do":"drop"}]'])
    def test_a_bad_script_is_a_400_and_changes_nothing(self, caller: Caller, body: str) -> None:
        caller.sandbox.faults = [Fault("engage", "drop")]
        assert caller.call("POST", "/sandbox/faults", body).status == 400
        assert len(caller.sandbox.faults) == 1

    def test_unknown_paths_are_a_404(self, caller: Caller) -> None:
        assert caller.call("GET", "/sandbox/nothing").status == 404
        assert caller.call("GET", "/api/query/jql").status == 404

    def test_it_listens_on_loopback_only(self, sandbox: Sandbox) -> None:
        assert sandbox.url.startswith("http://127.0.0.1:")
        assert sandbox.environment["MP_QUERY_URL"] == f"{sandbox.url}/api/query"
        assert sandbox.environment["MP_EXPORT_URL"] == f"{sandbox.url}/api/2.0"
