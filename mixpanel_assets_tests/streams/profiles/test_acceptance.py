"""What a profiles sync does when Mixpanel misbehaves: fault script x expectation, through the real definitions.

Every case begins with an old table (two thirds of the profiles with old properties, and one that Mixpanel no longer
has) and ends in one of three ways: the new snapshot; the pages that came merged into the old table, with the others
listed; or the old table untouched and no materialization. Never short without saying so, never green when short.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import pytest

from mixpanel_assets.sandbox import Fault, Population, Sandbox
from mixpanel_assets_tests.pipeline import Outcome, Pipeline

# Dagster's own use of its own deprecated name.
pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run is deprecated")

PAGE = 10
GONE = "no longer in Mixpanel"

# A fault of one page -> what the metadata's table of reasons says when it lasts.
TRANSIENT = {
    "status:500": "answered 500",
    "status:502": "answered 502",
    "status:503": "answered 503",
    "status:504": "answered 504",
    "limited:shedding": "too many requests",
    "limited:concurrency": "too many requests",
    "timeout-error": "ran out of time",
    "json-error-200": "answered 200 with an error",
    "not-json": "not whole JSON",
    "drop": "connection broke off",
    "reset": "connection broke off",
    "short-body": "connection broke off",
    "no-final-chunk": "connection broke off",
    "gzip-cut": "",
    "no-framing": "stops before its end",
    "cut": "not whole JSON",
    "line-cut": "not whole JSON",
    "terminated-early": "not whole JSON",
    "error-line": "Internal error",
    "no-results": "no results",
    "empty-page": "0 of 10 rows",
    "short-page": "5 of 10 rows",
    "session:other": "a page of another session",
    "page-number:7": "sent page 7 instead",
    "project:7": "sent project 7 instead",
}
FINAL = {
    "status:401": "refused the credentials",
    "status:402": "plan has no Query API",
    "status:403": "answered 403",
    "status:404": "answered 404",
    "status:412": "answered 412",
    "auth-error": "refused the credentials",
    "limited:window": "hourly quota",
}


def engage(do: str, page: int | None = None, times: int | None = None, **more: Any) -> Fault:
    return Fault("engage", do, page, times=times, **more)


@dataclass(frozen=True)
class Case:
    """`failed`: page indices that must be listed; None: nothing may be stored. `green`: the check passes and the run
    succeeds. `says`: words of the run's log. `unseen`: further pages that nobody knows of. `short`: rows that came of
    pages that lack some, and are stored. `population` profiles are served, `PAGE` a page."""

    name: str
    faults: list[Fault]
    failed: list[int] | None = field(default_factory=list)
    green: bool = True
    says: str = ""
    population: int = 35
    said: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    sandbox: dict[str, Any] = field(default_factory=dict)
    max_concurrent: int = 5
    unseen: list[int] = field(default_factory=list)
    short: dict[int, int] = field(default_factory=dict)


def red(name: str, faults: list[Fault], failed: list[int], says: str, **more: Any) -> Case:
    return Case(name, faults, failed, green=False, says=says, **more)


def nothing(name: str, faults: list[Fault], says: str, **more: Any) -> Case:
    return Case(name, faults, None, green=False, says=says, **more)


CASES = [
    Case("no fault", [], said={"total_reported": 35, "total_pages": 4, "successful_pages": 4, "failed_pages": 0}),
    Case("one page", [], population=7, said={"total_pages": 1}),
    Case("whole pages only", [], population=30, said={"total_pages": 3, "requests": 3}),
    Case("total on every page", [], sandbox={"total_on_all_pages": True}),
    Case("slow", [engage("trickle", 1, seconds=0.1), engage("delay", 2, seconds=0.1)]),
    # What the server makes of a wish for a page size
    Case("page size as wished", [], config={"page_size": 7}, said={"total_pages": 5}),
    Case("page size ignored", [], config={"page_size": 7}, sandbox={"ignore_page_size": True}, said={"total_pages": 4}),
    Case("page size capped", [], config={"page_size": 50}, sandbox={"page_size_cap": 20}, said={"total_pages": 2}),
    Case("page size changed once", [engage("page-size:5", 2, 1)], says="page_size from 10 to 5"),
    red("page size changed for ever", [engage("page-size:5", 2)], [2, 3], "page_size from 10 to 5", max_concurrent=1),
    # Totals. Red without _pages_in_all (only the plan's pages): "contradicted", "too small", "far too small".
    Case("total missing", [engage("total:missing")], said={"total_reported": None, "total_pages": 4}),
    Case("total missing, whole pages", [engage("total:missing")], population=40, said={"total_pages": 4}),
    Case("total missing, one page", [engage("total:missing")], population=9, said={"total_pages": 1}),
    red(
        "total missing, a page fails", [engage("status:500", 2), engage("total:missing")], [2], "answered 500",
        population=65,
    ),
    red(
        "total missing, the last page fails", [engage("status:500", 3), engage("total:missing")], [3], "answered 500",
    ),
    Case("total missing, session lost while counting", [engage("session-lost", 2, 1), engage("total:missing")]),
    nothing(
        "total missing, pages repeat", [engage("total:missing", 0), engage("repeated-page")], "rows of another page",
    ),
    red(
        "total missing, a page in the middle is short", [engage("total:missing", 0), engage("short-page", 2)],
        [2], "5 of 10 rows", short={2: 5}, said={"missing_profiles": 5, "total_pages": 4},
    ),
    red(
        "total missing, pages in the middle are short and empty",
        [engage("total:missing", 0), engage("short-page:1", 2), engage("empty-page", 5)],
        [2, 5], "0 of 10 rows", population=95, short={2: 9, 5: 0}, said={"missing_profiles": 11, "total_pages": 10},
    ),
    Case("total missing, a page in the middle is short once", [engage("total:missing", 0), engage("short-page", 2, 1)]),
    red(
        "total missing, two pages in a row fail", [engage("total:missing", 0), engage("status:500", 2),
        engage("status:500", 3)], [2, 3], "answered 500", said={"missing_profiles": None},
    ),
    red("total grows", [engage("total:growing", 1)], [], "1036 profiles were reported",
        said={"total_reported": 1036, "missing_profiles": 1001}),
    red("total too large", [engage("total:60", 0)], [3, 4, 5], "5 of 10 rows", short={3: 5},
        said={"missing_profiles": 25}),
    Case("total too large, and that is allowed", [engage("total:60", 0)], config={"max_missing_fraction": 0.5},
         said={"missing_profiles": 25, "failed_pages": 0, "removed_profiles": 0}, short={3: 5}),
    red("total larger than the only page", [engage("total:9", 0)], [0], "7 of 9 rows", population=7, short={0: 7},
        said={"missing_profiles": 2}),
    # Rows that do not come, of pages that do. Red without _with_missing: green, and fewer than were reported.
    *(
        red(f"page {page} lacks {n} rows", [engage(f"short-page:{n}", page)], [page], f"{due - n} of {due} rows",
            short={page: due - n}, said={"missing_profiles": n, "failed_pages": 1})
        for page, n, due in ((0, 1, 10), (0, 5, 10), (2, 1, 10), (3, 1, 5), (3, 4, 5))
    ),
    red("page 0 is empty", [engage("empty-page", 0)], [0], "0 of 10 rows", short={0: 0}),
    red("a page in the middle is empty", [engage("empty-page", 1)], [1], "0 of 10 rows", short={1: 0}),
    red("the last page is empty", [engage("empty-page", 3)], [3], "0 of 5 rows", short={3: 0}),
    red("several pages are short", [engage("short-page:1", page) for page in (0, 1, 3)], [0, 1, 3], "9 of 10 rows",
        short={0: 9, 1: 9, 3: 4}, said={"missing_profiles": 3}),
    Case("few are missing, and that is allowed", [engage("short-page:1", 3)], config={"max_missing_fraction": 0.03},
         short={3: 4}, said={"missing_profiles": 1, "failed_pages": 0, "removed_profiles": 0}),
    Case("few are missing in all", [engage("short-page:1", 1), engage("short-page:1", 3)], short={1: 9, 3: 4},
         config={"max_missing_fraction": 0.06}, says="2 of 35 profiles did not come, so that none was removed"),
    red("more are missing in all than is allowed", [engage("short-page:1", 1), engage("short-page:1", 3)], [1, 3],
        "4 of 5 rows", short={1: 9, 3: 4}, config={"max_missing_fraction": 0.03}),
    Case("one is missing of a thousand", [engage("short-page:1", 99)], population=1000, short={99: 9},
         sandbox={"page_size": 10}, said={"missing_profiles": 1, "removed_profiles": 0}),
    red("a page is short, then fails", [engage("short-page", 2, 1), engage("status:500", 2)], [2], "5 of 10 rows",
        short={2: 5}),
    red("a page is short, then shorter", [engage("short-page:2", 2, 1), engage("short-page:6", 2)], [2],
        "8 of 10 rows", short={2: 8}),
    Case("page 0 is short once", [engage("short-page", 0, 1)], said={"counted_requests": 2}),
    # Sessions that page 0 does not name. Red without the guard in fetch_page: page 0 over and over.
    *(
        red(f"page 0 names no session: {word}", [engage(f"session:{word}", 0)], [1, 2, 3],
            "page 2: not asked for, page 0 named no session_id", said={"counted_requests": 2, "requests": 2})
        for word in ("null", "missing", "empty", "long")
    ),
    red("page 0 names no session, and there is no total", [engage("only-results", 0)], [1], "named no session_id",
        said={"counted_requests": 2}, unseen=[2, 3]),
    Case("page 0 names no session once", [engage("session:null", 0, 1)], said={"counted_requests": 2}),
    red("page 0 names no session, and the next one fails", [engage("session:null", 0, 1), engage("status:503", 0)],
        [1, 2, 3], "named no session_id", said={"counted_requests": 2}),
    Case("one page without a session", [engage("session:null")], population=7, said={"counted_requests": 1}),
    Case("the last page names no session", [engage("session:null", 3)], said={"requests": 4}),
    Case("a session that is a number", [engage("session:number")], said={"requests": 4}),
    Case("a page of another session, once", [engage("session:other", 2, 1)]),
    Case("total shrinks", [engage("total:shrinking")]),
    Case("total contradicted by a later page", [engage("total:30", 0), engage("total:35", 2)], population=35),
    Case("total too small", [engage("total:25", 0)]),
    # What lies beyond a page that nobody promised shows when that page is fetched, by the retry job.
    red("total far too small", [engage("total:15", 0)], [3], "page 3: never fetched", population=45, unseen=[4]),
    # Red without page 1 in _with_pages: 10 of the profiles, and green.
    Case("total of the page", [engage("total:10")], said={"total_reported": 10, "total_pages": 4}),
    Case("total of the page, whole pages", [engage("total:10")], population=40, said={"total_pages": 4}),
    Case("one full page", [], population=10, said={"total_reported": 10, "total_pages": 1}),
    red("one full page, and page 1 does not show it", [engage("status:500", 1)], [1], "answered 500", population=10),
    # Pages that are another page. Red without _repeating: green with 25 of 35.
    Case("a page repeats the first, once", [engage("repeated-page", 2, 1)]),
    red("a page repeats the first, for ever", [engage("repeated-page", 2)], [2], "rows of another page"),
    red("a page repeats another, for ever", [engage("repeated-page:1", 2)], [1, 2], "rows of another page"),
    Case("profiles come twice", [engage("duplicate-rows", 2)], said={"duplicate_profiles": 3}),
    # Rows
    red("rows without an id", [engage("rows-without-id:2", 1)], [], "2 rows are no", said={"rejected_rows": 2}),
    red("rows that are no objects", [engage("rows-not-objects", 1)], [], "3 rows are", said={"rejected_rows": 3}),
    # Sessions. Red without the fresh start: [2, 3].
    Case("session lost once", [engage("session-lost", 2, 1)], says="one fresh start", said={"session_restarts": 1}),
    Case("session lost by another name", [engage("status:400", 2, 1)], says="the session is taken for lost"),
    red("session lost twice", [engage("session-lost", 2)], [2, 3], "session is lost", max_concurrent=1),
    red(
        "session lost, and no page 0 afterwards",
        [engage("session-lost", 2), engage("status:500", 0, after=1)], [2, 3],
        "the fresh start failed, so the pages that came before are kept", max_concurrent=1,
    ),
    Case(
        "session lost, and the hour spent", [engage("session-lost", 2, 1),
        engage("limited:window", 0, 1, after=1, retry_after=1)], says="waiting 1 s", said={"session_restarts": 1},
        config={"on_quota": "wait"},
    ),
    # Page 0, and everything
    Case("page 0 fails once", [engage("status:503", 0, 1)], said={"counted_requests": 2}),
    Case("the session of page 0 is lost once", [engage("session-lost", 0, 1)]),
    nothing("page 0 fails", [engage("status:503", 0)], "page 0: Mixpanel answered 503"),
    nothing("all pages fail", [engage("status:500")], "page 0: Mixpanel answered 500"),
    nothing("credentials are refused", [engage("status:401")], "check MP_USERNAME, MP_SECRET"),
    nothing("the plan has no Query API", [engage("status:402")], "plan has no Query API (402)"),
    nothing("the hour is spent", [engage("limited:window", 0)], "the hourly quota of the project is spent"),
    red("all pages but page 0 fail", [engage("status:500", page) for page in (1, 2, 3)], [1, 2, 3], "answered 500"),
]  # fmt: skip


def make_instance(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(
        str(tmp_path_factory.mktemp("instance")), overrides={"telemetry": {"enabled": False}}
    ) as instance:
        yield instance


def make_pipelines(instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Makes a pipeline on a sandbox that lives as long as the test; a mistake of the sandbox itself is an error."""
    opened: list[Sandbox] = []

    def make(population: int, **settings: Any) -> Pipeline:
        settings = {"page_size": PAGE, **settings}
        sandbox = Sandbox(Population(population, hostile=True), **settings)
        opened.append(sandbox)
        sandbox.start()
        return Pipeline.start(instance, sandbox, tmp_path, monkeypatch)

    yield make
    for sandbox in opened:
        sandbox.stop()
        assert sandbox.errors == []


instance = pytest.fixture(make_instance, scope="module")
pipelines = pytest.fixture(make_pipelines)


def seed(pipeline: Pipeline) -> dict[str, str | None]:
    """An old table, with the columns of an early version: most profiles as they once were, and one that is gone."""
    old: dict[str, str | None] = {key: '{"old":true}' for n, key in enumerate(pipeline.truth()) if n % 3}
    old[GONE] = '{"old":true}'
    with duckdb.connect(str(pipeline.database)) as connection:
        connection.execute("create schema mixpanel")
        connection.execute("use mixpanel")
        connection.execute("create table profiles (distinct_id varchar, properties json, last_seen timestamp, "
                           "synced_at timestamptz)")  # fmt: skip
        connection.executemany("insert into profiles values (?, ?, null, now())", list(old.items()))
    return old


def merged(pipeline: Pipeline, old: dict[str, str | None], lost: set[str]) -> dict[str, str | None]:
    """The old table with all of the truth but the rows of `lost` brought in, and nothing removed."""
    return {**old, **{key: value for key, value in pipeline.truth().items() if key not in lost}}


def ids_of(pipeline: Pipeline, pages: list[int]) -> set[str]:
    ids = list(pipeline.truth())
    return {key for page in pages for key in ids[page * PAGE : (page + 1) * PAGE]}


def check_ending(case: Case, pipeline: Pipeline, old: dict[str, str | None], outcome: Outcome) -> None:
    table = pipeline.table()
    assert outcome.success == case.green, outcome.words
    assert case.says in outcome.words
    if case.failed is None:
        assert outcome.said is None
        assert table == old
        return
    assert outcome.failed_pages == case.failed, outcome.words
    assert outcome.check == case.green
    assert {name: (outcome.said or {})[name] for name in case.said} == case.said
    if case.green and not case.short:
        assert table == pipeline.truth()
    else:
        rejected = pipeline.query("select row from {schema}.rejected_rows where asset = 'profiles'") or []
        lost = ids_of(pipeline, [*case.failed, *case.unseen, *case.short]) | rejected_ids(pipeline, len(rejected))
        assert table == merged(pipeline, old, lost - came_short(pipeline, case.short))


def came_short(pipeline: Pipeline, short: dict[int, int]) -> set[str]:
    """The first rows of pages that lack the others."""
    ids = list(pipeline.truth())
    return {key for page, rows in short.items() for key in ids[page * PAGE : page * PAGE + rows]}


def rejected_ids(pipeline: Pipeline, rejected: int) -> set[str]:
    """The faults spoil the first rows of page 1."""
    return set(list(pipeline.truth())[PAGE : PAGE + rejected])


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_case(pipelines: Any, case: Case) -> None:
    pipeline = pipelines(case.population, faults=case.faults, **case.sandbox)
    old = seed(pipeline)
    outcome = pipeline.sync(max_concurrent=case.max_concurrent, max_removed_fraction=0.9, **case.config)
    check_ending(case, pipeline, old, outcome)


def pages_of(kinds: dict[str, str], times: int | None) -> list[Fault]:
    """One fault per page, from page 1 on."""
    return [engage(do, page, times, retry_after=0 if do == "limited:concurrency" else None)
            for page, do in enumerate(kinds, 1)]  # fmt: skip


def requests_of(pipeline: Pipeline, page: int) -> int:
    return sum(request.page == page for request in pipeline.sandbox.journal.requests)


def test_what_passes_is_tried_again(pipelines: Any) -> None:
    pipeline = pipelines(PAGE * (len(TRANSIENT) + 1), faults=pages_of(TRANSIENT, 1))
    outcome = pipeline.sync()
    assert outcome.success, outcome.words
    assert pipeline.table() == pipeline.truth()
    assert [requests_of(pipeline, page) for page in range(1, len(TRANSIENT) + 1)] == [2] * len(TRANSIENT)


@pytest.mark.parametrize(("kinds", "requests"), [(TRANSIENT, 2), (FINAL, 1)], ids=["after retries", "at once"])
def test_a_page_that_fails_costs_only_itself(pipelines: Any, kinds: dict[str, str], requests: int) -> None:
    """What may pass is tried `max_attempts` times, what will not is asked for once; each reason is told."""
    pages = list(range(1, len(kinds) + 1))
    pipeline = pipelines(PAGE * (len(kinds) + 1), faults=pages_of(kinds, None))
    old = seed(pipeline)
    outcome = pipeline.sync(max_attempts=2)
    assert not outcome.success
    assert outcome.check is False
    assert outcome.failed_pages == pages
    short = {page: 5 for page, kind in zip(pages, kinds, strict=True) if kind == "short-page"}
    assert pipeline.table() == merged(pipeline, old, ids_of(pipeline, pages) - came_short(pipeline, short))
    assert [requests_of(pipeline, page) for page in pages] == [requests] * len(pages)
    lines = (outcome.said or {})["failures"].splitlines()[2:]
    for page, (line, reason) in enumerate(zip(lines, kinds.values(), strict=True), 1):
        told_page, told_reason, told_attempts, _waited = line.strip("| ").split(" | ")
        assert (told_page, told_attempts) == (str(page), str(requests))
        assert reason in told_reason


def test_an_empty_project_is_an_empty_table_and_a_success(pipelines: Any) -> None:
    pipeline = pipelines(0)
    outcome = pipeline.sync()
    assert outcome.success, outcome.words
    assert pipeline.table() == {}
    assert (outcome.said or {})["total_pages"] == 1


def test_rejected_rows_can_be_looked_at(pipelines: Any) -> None:
    pipeline = pipelines(35, faults=[engage("rows-not-objects", 1), engage("rows-without-id", 2)])
    pipeline.sync()
    rows = pipeline.query("select source, row_number, reason, row from {schema}.rejected_rows order by all")
    assert rows is not None
    assert [row[:3] for row in rows] == [
        ("page 1", 0, "not an object"),
        ("page 1", 1, "not an object"),
        ("page 1", 2, "not an object"),
        ("page 2", 0, "no $distinct_id"),
    ]
    assert [row[3] for row in rows][:3] == ["7", '"text"', "null"]
    # Red when rejected rows stay after a sync that has none.
    pipeline.sandbox.faults = []
    assert pipeline.sync().success
    assert pipeline.query("select * from {schema}.rejected_rows") == []


def test_parallel_and_sequential_give_the_same_table(pipelines: Any) -> None:
    """Also when profiles come twice with different properties: the one served last stays, in either mode. The server
    reports each once."""
    faults = [
        engage("total:95", 0),
        engage("duplicate-rows", 2),
        engage("status:500", 4, 1),
        engage("delay", 1, seconds=0.2),
    ]
    pipeline = pipelines(95, faults=faults)
    twice = list(pipeline.truth())[3]
    pipeline.sandbox.population.add(twice, {"served": "last"})
    tables = []
    for workers in (5, 1):
        pipeline.sandbox.journal.clear()
        pipeline.sandbox.latency = 0.02
        assert pipeline.sync(max_concurrent=workers).success
        tables.append(pipeline.query("select distinct_id, properties::varchar, last_seen from {schema}.profiles"))
        in_flight = pipeline.sandbox.journal.max_in_flight("engage")
        assert in_flight == 1 if workers == 1 else 1 < in_flight <= 5
    assert tables[0] == tables[1]
    assert {row[0]: row[1] for row in tables[0]}[twice] == '{"served":"last"}'


class TestRemoval:
    def test_rows_repeated_in_place_of_others_remove_nobody(self, pipelines: Any) -> None:
        # Red when rows are counted in place of profiles: three of the living go, and the sync is green.
        pipeline = pipelines(35)
        assert pipeline.sync().success
        pipeline.sandbox.faults = [engage("repeated-rows", 2)]
        short = pipeline.sync()
        assert not short.success
        assert "35 profiles were reported, 32 different ones came, none was removed: sync again" in short.words
        assert (short.said or {})["duplicate_profiles"] == 3
        assert pipeline.table() == pipeline.truth()

    def test_a_shrunken_project_needs_a_word(self, pipelines: Any) -> None:
        # Red without _refuse_large_removal: the table holds 5 profiles.
        pipeline = pipelines(35)
        assert pipeline.sync().success
        before = pipeline.table()
        for key in list(pipeline.truth())[5:]:
            pipeline.sandbox.population.remove(key)
        refused = pipeline.sync()
        assert not refused.success
        assert refused.said is None
        assert "refused to remove 30 of 35 stored profiles (86%), the limit is 50%" in refused.words
        assert "sync again with max_removed_fraction=0.86" in refused.words
        assert pipeline.table() == before
        allowed = pipeline.sync(max_removed_fraction=0.86)
        assert allowed.success, allowed.words
        assert (allowed.said or {})["removed_profiles"] == 30
        assert pipeline.table() == pipeline.truth()

    def test_a_run_taken_up_again_does_not_undo_a_later_one(self, pipelines: Any, tmp_path: Path) -> None:
        """Red when the last to come wins: the newcomer is gone.

        The later sync deletes what the refused one had staged, unless it is being executed again at that time; here
        its files are put back.
        """
        pipeline = pipelines(35)
        assert pipeline.sync().success
        people = pipeline.sandbox.population
        for key in list(pipeline.truth())[5:]:
            people.remove(key)
        refused = pipeline.sync()
        staging = pipeline.home / "staging"
        shutil.copytree(staging, tmp_path / "staged")
        people.add("newcomer", {})
        assert pipeline.sync(max_removed_fraction=1.0).success
        gone = pipeline.reexecute(refused.run_id)
        assert not gone.success
        assert "materialize anew" in gone.words
        assert pipeline.table() == pipeline.truth()
        shutil.copytree(tmp_path / "staged", staging, dirs_exist_ok=True)
        again = pipeline.reexecute(refused.run_id)
        assert not again.success
        assert "one that began later has stored all 6 profiles: the table is as it was" in again.words
        assert pipeline.table() == pipeline.truth()

    def test_new_removed_and_changed_profiles_are_counted(self, pipelines: Any) -> None:
        pipeline = pipelines(35)
        pipeline.sync()
        people = pipeline.sandbox.population
        ids = list(pipeline.truth())
        people.remove(ids[3])
        people.replace(ids[4], {"now": "other"})
        people.add("newcomer", {"plan": "pro"})
        outcome = pipeline.sync()
        assert outcome.said is not None
        assert (outcome.said["new_profiles"], outcome.said["removed_profiles"]) == (1, 1)
        assert pipeline.table() == pipeline.truth()
