"""Streams that are a list on one page: cohorts, and a toy that is nothing but a folder and a line."""

import datetime
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest

from mixpanel_assets import fetch_list, settings
from mixpanel_assets.cli.main import run
from mixpanel_assets.client.client import MixpanelClient
from mixpanel_assets.client.quota import LEDGER_FILE, Ledger
from mixpanel_assets.client.retry import RetryPolicy
from mixpanel_assets.client.start_rate import schema_starts
from mixpanel_assets.definitions import build_defs
from mixpanel_assets.errors import (
    AuthenticationError,
    ConfigurationError,
    FatalError,
    MixpanelError,
    PlanError,
    TransientError,
)
from mixpanel_assets.sandbox import Fault, Population, Sandbox
from mixpanel_assets.sandbox.lists import ANNOTATIONS, SCHEMAS
from mixpanel_assets.streams.all import STREAMS
from mixpanel_assets.streams.annotations.stream import ANNOTATION_LIST
from mixpanel_assets.streams.cohorts.stream import COHORT_LIST
from mixpanel_assets.streams.lexicon_schemas.stream import LEXICON_LIST
from mixpanel_assets.streams.snapshot.page import Page
from mixpanel_assets.streams.snapshot.stream import SnapshotStream
from mixpanel_assets_tests.toy_stream import TOYS

# Dagster's own code calls it while it sets up a resource.
pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run is deprecated")


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    with Sandbox(Population(profiles=20)) as sandbox:
        for name, value in {**sandbox.environment, "DAGSTER_HOME": str(tmp_path / "home")}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("MP_DUCKDB_PATH", str(tmp_path / "mp.duckdb"))
        yield sandbox


def rows(tmp_path: Path, query: str) -> list[Any]:
    with duckdb.connect(str(tmp_path / "mp.duckdb"), read_only=True) as connection:
        return connection.execute(query).fetchall()


def queries_left(sandbox: Sandbox) -> int:
    """What the ledger has left of the hour."""
    ledger = Ledger(settings.home() / LEDGER_FILE)
    return ledger.account(sandbox.environment["MP_QUERY_URL"], sandbox.project_id, "query").quota().left


def cohort(number: int | str, name: str, **more: Any) -> dict[str, Any]:
    return {"id": number, "name": name, "count": 3, "created": "2019-03-19 23:49:51", **more}


def test_cohorts_are_stored_as_served(sandbox: Sandbox, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """One request, the columns of each, and those that are gone in Mixpanel go."""
    sandbox.lists.cohorts = [cohort(7, "Paying", description="a, b"), cohort("8", "Grüße 🚀"), cohort(9, "")]
    assert run(["fetch", "cohorts"]) == 0
    assert '"rows": 3' in capfd.readouterr().out
    assert [request.endpoint for request in sandbox.journal.requests] == ["cohorts/list"]
    stored = "select cohort_id, name, members, created::varchar, description from mixpanel.cohorts order by 1"
    assert rows(tmp_path, stored) == [
        ("7", "Paying", 3, "2019-03-19 23:49:51", "a, b"),
        ("8", "Grüße 🚀", 3, "2019-03-19 23:49:51", None),
        ("9", "", 3, "2019-03-19 23:49:51", None),
    ]
    sandbox.lists.cohorts = [cohort(7, "Paid"), cohort(9, "New")]
    assert run(["fetch", "cohorts"]) == 0
    assert rows(tmp_path, "select cohort_id, name from mixpanel.cohorts order by 1") == [("7", "Paid"), ("9", "New")]


@dataclass(frozen=True)
class Listed:
    """A list as the sandbox serves it: its endpoint, its stream, and the answer around the items."""

    endpoint: str
    stream: SnapshotStream
    answer: str

    def __str__(self) -> str:
        return self.stream.name

    def page(self, **chosen: Any) -> Page:
        """The list as the client reads it, with one attempt more and no wait."""
        client = MixpanelClient(settings.project(), policy=RetryPolicy(max_attempts=2, base_seconds=0))
        query, retrier = self.stream.query(**chosen), client.retrier(logging.getLogger(__name__))
        query.check()
        try:
            return self.stream.fetch_page(client, query, 0, None, retrier, lambda page: None, Path())
        finally:
            client.close()


LISTS = (
    Listed("cohorts/list", COHORT_LIST, "%s"),
    Listed("annotations", ANNOTATION_LIST, '{"status":"ok","results":%s}'),
)
LEXICON = Listed("schemas", LEXICON_LIST, '{"status":"ok","results":%s}')
each_list = pytest.mark.parametrize("listed", [*LISTS, LEXICON], ids=str)
ODD = (
    *('{"error":"no"}', '{"status":"error","error":"no"}', "", "null", "7", '{"code":500}', "[", '"terminated early"'),
    *('{"status":"ok"}', '{"results":null}', '{"results":{}}', '{"results":[{"id":7}', '{"results":[}', "<html>", "{}"),
)
STATUSES = {
    401: AuthenticationError,
    402: PlanError,
    403: FatalError,
    404: FatalError,
    429: TransientError,
    503: TransientError,
}


@each_list
def test_what_is_no_whole_list_is_none(sandbox: Sandbox, listed: Listed) -> None:
    """Red when any of it is taken for an empty list; each is asked for again."""
    for fault in (
        *(Fault(listed.endpoint, "status:200", body=body, times=None) for body in ODD),
        *(Fault(listed.endpoint, do, times=None) for do in ("cut", "short-body", "reset", "gzip-cut", "not-json")),
    ):
        sandbox.faults = [fault]
        sandbox.clear()
        with pytest.raises(TransientError, match=r"^page 0: "):
            listed.page()
        assert len(sandbox.journal.requests) == 2, fault


@each_list
def test_a_refusal_says_what_to_do(sandbox: Sandbox, listed: Listed) -> None:
    for status, error in STATUSES.items():
        sandbox.faults = [Fault(listed.endpoint, f"status:{status}", times=None)]
        sandbox.clear()
        with pytest.raises(error, match=f"^page 0: [^\n]*{status}"):
            listed.page()
        assert len(sandbox.journal.requests) == (2 if error is TransientError else 1), status


@pytest.mark.parametrize("listed", LISTS, ids=str)
def test_rows_of_a_list_are_kept_as_served(sandbox: Sandbox, listed: Listed) -> None:
    """Whatever an item holds; what has no key is set aside."""
    good = ['{"id":123456789012345678901234567890,"name":7}', '{"id":"a/b","date":[1],"tags":"x"}', '{"id":7,"id":8}']
    bad = ['{"id":null}', '{"id":1.5}', '{"id":[7]}', '{"id":""}', '{"ID":7}', "[]", "null", "7"]
    body = listed.answer % f"[{','.join(good + bad)}]"
    sandbox.faults = [Fault(listed.endpoint, "status:200", body=body)]
    page = listed.page()
    assert [(row.key, row.content) for row in page.rows] == list(
        zip(["123456789012345678901234567890", "a/b", "8"], good, strict=True)
    )
    assert [row.text for row in page.rejected] == bad


def test_an_odd_answer_costs_no_stored_row(sandbox: Sandbox, tmp_path: Path) -> None:
    fetch_list("cohorts")
    before = rows(tmp_path, "from mixpanel.cohorts")
    sandbox.faults = [Fault("cohorts/list", "status:404", times=None)]
    with pytest.raises(MixpanelError, match="404"):
        fetch_list("cohorts")
    assert rows(tmp_path, "from mixpanel.cohorts") == before


def test_annotations_are_stored(sandbox: Sandbox, tmp_path: Path) -> None:
    """As they are, in whatever shape; a range of days removes only what no other sync has brought."""
    odd = {"id": 10**20, "date": "soon", "description": None, "tags": [{"name": "a"}, 7, {"name": None}]}
    sandbox.lists.annotations = [*ANNOTATIONS, odd, {"id": 3, "date": 20260101, "tags": "x"}]
    result = fetch_list("annotations")
    assert (result.rows, result.type, result.table) == (4, "annotations", "mixpanel.annotations")
    [request] = sandbox.journal.requests
    assert (request.endpoint, request.method) == ("annotations", "GET")
    table = "select annotation_id, date::varchar, description, tags from mixpanel.annotations"
    assert sorted(rows(tmp_path, table)) == [
        ("100000000000000000000", None, None, ["a", None]),
        ("3", None, None, []),
        ("501", "2026-01-15 12:00:00", "Version 2 is out", ["release"]),
        ("502", "2026-02-20 08:30:00", "Outage", []),
    ]
    sandbox.lists.annotations = [{"id": 600, "date": "2026-01-31 00:00:00"}, {"id": 601, "date": "2026-02-01 00:00:00"}]
    fetch_list("annotations", from_date="2026-01-01", to_date=datetime.date(2026, 1, 31))
    ids = "select annotation_id from mixpanel.annotations order by 1"
    assert [key for (key,) in rows(tmp_path, ids)] == ["100000000000000000000", "3", "501", "502", "600"]
    assert queries_left(sandbox) == 60


def test_a_plan_without_the_query_api_costs_what_needs_it(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One line for each such stream; all others of the run are stored."""
    monkeypatch.setenv("MP_GROUPS", "company=-14")
    sandbox.faults = [Fault(endpoint, "status:402", times=None) for endpoint in ("engage", "cohorts/list")]
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        job = build_defs().resolve_implicit_global_asset_job_def()
        done = {
            stream.name: job.execute_in_process(
                instance=instance,
                asset_selection=[stream.key],
                raise_on_error=False,
                partition_key="2024-01-02" if stream.name == "events" else None,
            )
            for stream in STREAMS
        }
    assert {name for name, each in done.items() if not each.success} == {
        *("profiles", "groups", "cohorts", "cohort_members")
    }
    nothing = "no page of 2 came, nothing was stored or removed: page 1: group company"
    for name, beginning, fetched in (
        ("profiles", "page 0", "profiles"),
        ("groups", nothing, "groups"),
        ("cohorts", "page 0", "cohorts"),
        ("cohort_members", "page 0", "members of cohorts"),
    ):
        failures = [
            event.step_failure_data.user_failure_data for event in done[name].all_events if event.is_step_failure
        ]
        assert [failure.description for failure in failures if failure] == [
            f"{beginning}: the project's plan has no Query API (402), so {fetched} cannot be fetched, events can: Your "
            "plan does not allow API calls. Upgrade at mixpanel.com/pricing"
        ]
    assert rows(tmp_path, "select count(*) > 0 from mixpanel.events") == [(True,)]
    assert queries_left(sandbox) == 60


def test_lexicon_is_taken_apart(sandbox: Sandbox, tmp_path: Path) -> None:
    """A row for each event and each property; a sync of one kind leaves the other."""
    odd = {"description": 7, "metadata": {"com.mixpanel": {"tags": "x", "hidden": "yes", "dropped": 1}}}
    sandbox.lists.schemas = [*SCHEMAS, {"entityType": "event", "name": "Größe\n🚀", "schemaJson": odd}]
    fetch_list("lexicon_schemas")
    names = "entity_type, entity_name, property"
    said = f"select {names}, description, display_name, type, tags, hidden, dropped from mixpanel.lexicon_schemas"
    assert rows(tmp_path, f"{said} order by {names} nulls first") == [
        ("event", "Größe\n🚀", None, "7", None, None, [], False, False),
        ("event", "Sign up", None, "Somebody made an account", "New account", None, ["core"], False, False),
        ("event", "Sign up", "debug", None, None, "boolean", [], True, True),
        ("event", "Sign up", "plan", "What they pay for", None, "string", [], False, False),
        ("profile", "$user", None, None, None, None, [], False, False),
        ("profile", "$user", "$email", None, None, "string", [], False, False),
    ]
    sandbox.lists.schemas = [{"entityType": "event", "name": "New", "schemaJson": {}}, *SCHEMAS[1:]]
    fetch_list("lexicon_schemas", entity_type="event")
    assert rows(tmp_path, "select count(*) from mixpanel.lexicon_schemas") == [(7,)]
    assert {request.endpoint for request in sandbox.journal.requests} == {"schemas"}
    assert queries_left(sandbox) == 60


def test_an_entry_that_is_none_is_set_aside(sandbox: Sandbox) -> None:
    good, bad = (
        '{"entityType":"event","name":"","schemaJson":{"properties":null}}',
        {
            "7": "not an object",
            '{"name":"x","schemaJson":{}}': "no entityType",
            '{"entityType":"event","name":7,"schemaJson":{}}': "no name",
            '{"entityType":"event","name":"x"}': "no schemaJson",
            '{"entityType":"event","name":"x","schemaJson":[]}': "schemaJson is no object",
            '{"entityType":"event","name":"x","schemaJson":{"properties":[]}}': "properties are no object",
        },
    )
    body = LEXICON.answer % f"[{','.join([good, *bad])}]"
    sandbox.faults = [Fault("schemas", "status:200", body=body)]
    page = LEXICON.page()
    assert [row.key for row in page.rows] == ['["event", ""]']
    assert {row.text: row.reason for row in page.rejected} == bad


def test_lexicon_is_asked_five_times_a_minute(tmp_path: Path) -> None:
    """By all processes together."""

    class Stop(threading.Event):
        now = 1000.0

        def wait(self, timeout: float | None = None) -> bool:
            self.now += timeout or 0
            return False

    stop, starts = Stop(), list[float]()
    rates = [schema_starts(tmp_path / "starts", lambda: stop.now) for _ in range(2)]
    for number in range(12):
        with rates[number % 2].turn(stop):
            starts.append(stop.now)
    assert all(later - earlier > 60 for earlier, later in zip(starts, starts[5:], strict=False))
    assert starts[-1] - starts[0] < 125


def test_a_wrong_argument_asks_nothing(sandbox: Sandbox) -> None:
    for name, chosen, words in (
        ("annotations", {"from_date": "20260131"}, "from_date '20260131' is not a date: write it as 2024-01-31"),
        ("annotations", {"from_date": "2026-02-01", "to_date": "2026-01-31"}, "is after to_date 2026-01-31"),
        ("annotations", {"where": "x"}, "annotations knows no where"),
        ("annotations", {"max_removed_fraction": 2}, "max_removed_fraction must be between 0 and 1"),
        ("lexicon_schemas", {"entity_type": "user"}, "entity_type must be event or profile, not 'user'"),
        ("profiles", {}, "there is no stream 'profiles': it is one of groups, "),
    ):
        with pytest.raises(ConfigurationError, match=words):
            fetch_list(name, **chosen)
    assert run(["fetch", "annotations", "--from", "yesterday"]) == 3
    assert sandbox.journal.requests == []


def test_an_empty_list_is_refused_while_rows_are_stored(
    sandbox: Sandbox, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    sandbox.lists.cohorts = []
    assert run(["fetch", "cohorts"]) == 0, "a project without cohorts"
    sandbox.lists.cohorts = [cohort(1, "a"), cohort(2, "b")]
    assert run(["fetch", "cohorts"]) == 0
    sandbox.lists.cohorts = []
    assert run(["fetch", "cohorts"]) == 1
    assert "refused to remove 2 of 2 stored cohorts" in capfd.readouterr().err
    assert len(rows(tmp_path, "from mixpanel.cohorts")) == 2
    assert run(["fetch", "cohorts", "--max-removed-fraction", "1"]) == 0
    assert rows(tmp_path, "from mixpanel.cohorts") == []


def test_what_is_always_listed_twice_is_one_row(sandbox: Sandbox, tmp_path: Path) -> None:
    """Red when the rows of the list are taken for as many ids: then one seems to be missing, in every sync."""
    sandbox.lists.cohorts = [cohort(1, "a"), cohort(2, "b"), cohort(1, "a")]
    for _ in range(2):
        assert run(["fetch", "cohorts"]) == 0
        assert rows(tmp_path, "select cohort_id from mixpanel.cohorts order by all") == [("1",), ("2",)]
    sandbox.lists.cohorts = [cohort(2, "b"), cohort(2, "b")]
    assert run(["fetch", "cohorts"]) == 0
    assert rows(tmp_path, "select cohort_id from mixpanel.cohorts") == [("2",)], "and who is gone, goes"


def test_what_is_no_cohort_is_set_aside(sandbox: Sandbox, tmp_path: Path) -> None:
    sandbox.lists.cohorts = [cohort(1, "a"), "odd", {"name": "no id"}, {"id": None}, {"id": 1.5}]
    assert run(["fetch", "cohorts"]) == 1
    assert rows(tmp_path, "select cohort_id from mixpanel.cohorts") == [("1",)]
    reasons = "select reason from mixpanel.rejected_rows where asset = 'cohorts' order by row_number"
    assert [reason for (reason,) in rows(tmp_path, reasons)] == ["not an object", "no id", "no id", "no id"]


def test_a_toy_stream_is_a_folder_and_a_line(sandbox: Sandbox, tmp_path: Path) -> None:
    """Red when any part of the code location names the streams one by one."""
    defs = build_defs(streams=(*STREAMS, TOYS))
    repository = defs.get_repository_def()
    assert repository.has_job("sync_toys")
    assert repository.has_job("retry_failed_toy_pages")
    assert repository.has_schedule_def("hourly_toys_schedule")
    assert repository.has_sensor_def("retry_failed_toy_pages_sensor")
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        job = defs.resolve_implicit_global_asset_job_def()
        result = job.execute_in_process(instance=instance, asset_selection=[TOYS.key])
        assert result.success
        checks = {each.check_name: each.passed for each in result.get_asset_check_evaluations()}
    assert checks == {f"toys_{what}": True for what in ("complete", "fresh", "not_fewer", "unique")}
    served = sorted((str(cohort_id), f"Cohort {cohort_id}") for cohort_id in sandbox.population.cohorts)
    assert served
    assert rows(tmp_path, "select toy_id, name from mixpanel.toys order by 1") == served
