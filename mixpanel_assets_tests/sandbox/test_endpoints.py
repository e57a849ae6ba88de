"""What the sandbox answers: shapes, paging, sessions, exports, credentials.

Every guard named in a comment "red without" was removed once, and the test seen to fail.
"""

import base64
import json
import zlib
from collections import Counter
from typing import Any
from urllib.parse import urlencode

import pytest

from mixpanel_assets.sandbox import GROUP_ID, Limits, Population, Sandbox
from mixpanel_assets_tests.sandbox.caller import DAY, Caller

pytestmark = pytest.mark.unit


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


def of_events(caller: Caller, days: list[str], name: str) -> Counter[str]:
    """How often each person did it on some days, counted in the truth."""
    rows = (row for day in days for row in caller.sandbox.population.events(day))
    return Counter(json.loads(properties)["distinct_id"] for event, properties in rows if event == name)


class TestOfficialClient:
    """What Mixpanel's own Python client sends: mixpanel-utils 2.2.7, and what its users give it."""

    @pytest.mark.parametrize("base", ["/api/query/engage", "/api/2.0/engage"])
    @pytest.mark.parametrize("slash", ["", "/"])
    def test_every_way_to_ask_brings_the_same_rows(self, caller: Caller, base: str, slash: str) -> None:
        everyone = [who for who, _ in caller.sandbox.population.profiles()]
        params = {"project_id": caller.sandbox.project_id, "distinct_ids": json.dumps([everyone[4], everyone[9], "no"])}
        numbers = {"project_id": int(caller.sandbox.project_id), "distinct_ids": [everyone[4], everyone[9]]}
        answers = [
            caller.call("GET", f"{base}{slash}?{urlencode(params)}"),
            caller.call("POST", f"{base}{slash}?verbose=1", urlencode(params)),
            caller.call("POST", base + slash, json.dumps({**params, "where": None})),
            caller.call("POST", base + slash, json.dumps(numbers), {"Content-Type": "application/json"}),
        ]
        assert [(a.status, a.ids, a.json["total"]) for a in answers] == [(200, [everyone[4], everyone[9]], 2)] * 4

    @pytest.mark.parametrize("slash", ["", "/"])
    def test_exports_too(self, caller: Caller, slash: str) -> None:
        params = {"project_id": caller.sandbox.project_id, "from_date": DAY, "to_date": DAY, "event": '["Search"]'}
        asked = caller.call("GET", f"/api/2.0/export{slash}?{urlencode(params)}").body
        assert len(asked.splitlines()) == sum(of_events(caller, [DAY], "Search").values()) > 0
        for body in (urlencode(params), json.dumps({**params, "event": ["Search"]})):
            assert caller.call("POST", "/api/2.0/export" + slash, body).body == asked

    def test_ids_that_are_numbers_or_nobodys(self, caller: Caller) -> None:
        caller.sandbox.population.add(12, {"plan": "pro"})
        assert (
            caller.engage(page=0, distinct_ids="[12]").ids == caller.engage(page=0, distinct_ids='["12"]').ids == [12]
        )
        assert caller.engage(page=0, distinct_id="12").ids == [12]
        assert caller.engage(page=0, distinct_ids="[]").ids == []

    def test_pages_of_listed_ids(self, caller: Caller) -> None:
        wanted = [who for who, _ in caller.sandbox.population.profiles()][3:]
        assert all_ids(caller, distinct_ids=json.dumps(wanted)) == wanted

    def test_its_older_name_of_where_and_its_functions(self, caller: Caller) -> None:
        everyone = [who for who, _ in caller.sandbox.population.profiles()]
        assert all_ids(caller, selector='(defined (properties["$email"]))') == everyone
        assert all_ids(caller, where='(boolean(properties["referrer"]) == true)') == []

    def test_behaviors_are_counted_in_the_window_before_the_moment(self, caller: Caller) -> None:
        did = of_events(caller, ["2024-01-09", "2024-01-10"], "Checkout")
        expected = [who for who, _ in caller.sandbox.population.profiles() if did[who] >= 1]
        behavior = {"window": "2d", "name": "bought", "event_selectors": [{"event": "Checkout"}]}
        params: dict[str, Any] = {
            "where": '(behaviors["bought"] >= 1)',
            "as_of_timestamp": 1704931199,
        }
        assert 0 < len(expected) < 25
        assert all_ids(caller, behaviors=json.dumps([behavior]), **params) == expected
        narrow = {**behavior, "event_selectors": [{"event": "Checkout", "selector": 'properties["plan"] == "none"'}]}
        assert all_ids(caller, behaviors=json.dumps([narrow]), **params) == []
        # Late events count at once: red when what another session was given is served again.
        caller.sandbox.population.add_events("2024-01-10", [("Checkout", {"time": 1704900000, "distinct_id": "late"})])
        caller.sandbox.population.add("late", {})
        assert all_ids(caller, behaviors=json.dumps([behavior]), **params) == [*expected, "late"]

    def test_behaviors_page_only_with_a_moment(self, caller: Caller) -> None:
        behavior = '[{"window":"30d","name":"b","event_selectors":[{"event":"Checkout"}]}]'
        params: dict[str, Any] = {"behaviors": behavior, "where": 'behaviors["b"] >= 0'}
        first = caller.engage(page=0, **params).json
        later = caller.engage(page=1, session_id=first["session_id"], **params)
        assert (first["total"], later.status) == (25, 400)
        assert later.json["error"] == "request for page in uncached query for params"
        first = caller.engage(page=0, as_of_timestamp=1704931199, **params).json
        assert len(caller.engage(page=1, session_id=first["session_id"], **params).ids) == 10

    @pytest.mark.parametrize(
        ("params", "words"),
        [
            ({"distinct_ids": "["}, "distinct_ids must be JSON"),
            ({"distinct_ids": '"a"'}, "distinct_ids must be a JSON array"),
            ({"behaviors": "30"}, "Invalid behaviors"),
            ({"behaviors": '[{"window":"soon","name":"b","event_selectors":[{"event":"E"}]}]'}, "Invalid behaviors"),
            ({"behaviors": '[{"window":"1d","name":"b"}]'}, "Invalid behaviors"),
            ({"behaviors": "[]", "where": 'behaviors["b"] > 0'}, "Unable to parse where: unknown behavior 'b'"),
            ({"behaviors": "[]", "as_of_timestamp": "noon"}, "as_of_timestamp must be"),
            ({"behaviors": "[]", "filter_by_cohort": '{"id":1000}'}, "cannot be combined"),
        ],
    )
    def test_what_makes_no_sense_is_a_400_that_says_so(
        self, caller: Caller, params: dict[str, Any], words: str
    ) -> None:
        answer = caller.engage(page=0, **params)
        assert answer.status == 400
        assert words in answer.json["error"]

    @pytest.mark.parametrize("path", ["/api/query/engage/properties", "/api/2.0/engage/properties/"])
    def test_properties_with_their_types(self, caller: Caller, path: str) -> None:
        query = {"project_id": caller.sandbox.project_id, "limit": 2000}
        answer = caller.call("GET", f"{path}?{urlencode(query)}")
        assert (answer.status, answer.json["status"]) == (200, "ok")
        results = answer.json["results"]
        assert results["$last_seen"] == {"count": 25, "type": "datetime"}
        types = {name: results[name]["type"] for name in ("plan", "sessions", "is_admin", "tags", "company", "devices")}
        assert list(types.values()) == ["string", "number", "boolean", "list", "object", "list"]
        few = caller.call("POST", path, json.dumps({**query, "limit": 3, "data_group_id": GROUP_ID})).json["results"]
        assert [row["count"] for row in few.values()] == [4, 4, 4]
        assert caller.call("GET", f"{path}?{urlencode({**query, 'limit': 'x'})}").status == 400
        assert caller.call("GET", path).status == 400  # no project

    def test_properties_are_a_query_that_counts(self) -> None:
        with Sandbox(Population(profiles=3), limits=Limits(queries_per_hour=1)) as sandbox:
            caller = Caller(sandbox)
            path = f"/api/query/engage/properties?project_id={sandbox.project_id}"
            assert caller.call("GET", path).status == 200
            assert caller.engage(page=0).status == 429

    def test_a_path_that_is_none_is_a_404(self, caller: Caller) -> None:
        for path in ("/api/query/engage/stats", "/api/query/engage//", "/api/2.0/exports", "/"):
            assert caller.call("GET", path).status == 404


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
