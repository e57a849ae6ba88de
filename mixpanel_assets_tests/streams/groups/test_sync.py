"""Groups: one page per kind, however many answers that is; a kind that fails costs only itself."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from dagster import DagsterInstance

from mixpanel_assets import fetch_list, fetch_profiles, settings
from mixpanel_assets.cli.main import run
from mixpanel_assets.client.client import MixpanelClient
from mixpanel_assets.client.retry import RetryPolicy
from mixpanel_assets.definitions import build_defs
from mixpanel_assets.errors import (
    ConfigurationError,
    IncompleteSyncError,
    MixpanelError,
    PlanError,
    QuotaError,
    WarehouseError,
)
from mixpanel_assets.projects import copied_project
from mixpanel_assets.sandbox import GROUP_ID, Fault, Population, Sandbox
from mixpanel_assets.settings import Variables
from mixpanel_assets.streams.groups.assets import GroupsConfig
from mixpanel_assets.streams.groups.fetch import fetch_page
from mixpanel_assets.streams.groups.query import GroupsQuery
from mixpanel_assets.streams.snapshot.page import Page

# Dagster's own code calls it while it sets up a resource.
pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run is deprecated")

NAME, TEAM = "groups", "7"
STORED = "select group_key, data_group_id, group_id, properties::varchar from mixpanel.groups order by all"
COUNTS = "select group_key, count(*) from mixpanel.groups group by all order by all"


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    """Two kinds of groups, some ids of which are also ids of the other kind; teams have awkward values."""
    population = Population(profiles=4, group_profiles=12)
    population.groups[TEAM] = Population(9, seed=5, hostile=True)
    for distinct_id, _ in list(population.groups[GROUP_ID].profiles())[:2]:
        population.groups[TEAM].add(distinct_id, {"seats": 2**60, "of": "team"})
    with Sandbox(population, page_size=5) as sandbox:
        for name, value in {**sandbox.environment, "DAGSTER_HOME": str(tmp_path / "home")}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("MP_DUCKDB_PATH", str(tmp_path / "mp.duckdb"))
        monkeypatch.setenv("MP_GROUPS", f"company={GROUP_ID}, the team={TEAM}")
        yield sandbox


def rows(tmp_path: Path, query: str) -> list[Any]:
    with duckdb.connect(str(tmp_path / "mp.duckdb"), read_only=True) as connection:
        return connection.execute(query).fetchall()


def truth(sandbox: Sandbox, **names: str) -> list[tuple[str, str, str, str | None]]:
    """What the table should hold."""
    names = names or {"company": GROUP_ID, "the team": TEAM}
    return sorted(
        (name, number, group_id, properties.replace("\\ud800", "\\ufffd").replace("\\udc00", "\\ufffd"))
        for name, number in names.items()
        for group_id, properties in sandbox.population.groups[number].profiles()
    )


def asked(sandbox: Sandbox) -> list[Any]:
    """Kinds in the order in which they were asked for, page by page."""
    assert {request.endpoint for request in sandbox.journal.requests} <= {"engage"}
    return [(request.params["data_group_id"], request.page) for request in sandbox.journal.requests]


def test_groups_of_all_kinds(sandbox: Sandbox, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """As served, beside the users; red when rows are told apart by their id alone."""
    fetch_profiles()
    sandbox.clear()
    result = fetch_list(NAME)
    assert (result.rows, result.table) == (23, "mixpanel.groups")
    assert rows(tmp_path, STORED) == truth(sandbox)
    assert asked(sandbox) == [*((GROUP_ID, page) for page in range(3)), *((TEAM, page) for page in range(3))]
    assert rows(tmp_path, "select count(*) from mixpanel.profiles") == [(4,)]
    assert rows(tmp_path, "select count(*) from mixpanel.groups_wide_company") == [(12,)]
    assert rows(tmp_path, "select max(seats) from mixpanel.groups_wide_the_team") == [(2**60,)]
    assert list((tmp_path / "home" / "staging" / NAME).iterdir()) == []
    capfd.readouterr()
    assert run(["status"]) == 0
    out = capfd.readouterr().out
    assert '"groups": {' in out
    assert '"rows": 23' in out
    assert run(["plan", NAME]) == 0
    assert '"counted_requests": 2' in capfd.readouterr().out


def test_a_kind_that_fails_costs_only_itself(
    sandbox: Sandbox, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Red when an incomplete sync removes nothing, or removes groups of the kind that failed."""
    fetch_list(NAME)
    before = truth(sandbox)
    gone = [next(iter(population.profiles()))[0] for population in sandbox.population.groups.values()]
    for population, group_id in zip(sandbox.population.groups.values(), gone, strict=True):
        population.remove(group_id)
    sandbox.faults = [Fault("engage", "status:403", after=3, times=None)]
    assert run(["fetch", NAME, "--no-progress"]) == 1
    assert "1 of 3 pages are missing: 2; job retry_failed_group_pages fetches them again" in capfd.readouterr().err
    assert rows(tmp_path, STORED) == [row for row in before if row[1:3] != (GROUP_ID, gone[0])]
    [(page, reason)] = rows(tmp_path, "select page_index, reason from mixpanel.missing_groups")
    assert (page, reason.split(": ")[:2]) == (2, ["page 2", "group the team"])
    sandbox.faults = []
    sandbox.clear()
    assert run(["retry", NAME, "--no-progress"]) == 0
    assert {number for number, _ in asked(sandbox)} == {TEAM}
    assert rows(tmp_path, STORED) == truth(sandbox)
    assert run(["retry", NAME]) == 0
    assert "Nothing to fetch again" in capfd.readouterr().err


def test_no_kind_loses_more_than_it_may(sandbox: Sandbox, tmp_path: Path) -> None:
    """Red when all kinds are counted together: one that is empty by a fault goes unseen beside a large one."""
    fetch_list(NAME)
    before = truth(sandbox)
    # It takes the place of both answers for the smaller kind.
    sandbox.population.groups[TEAM] = Population(0)
    with pytest.raises(WarehouseError, match="refused to remove 11 of 11 stored groups of data_group_id 7"):
        fetch_list(NAME)
    assert rows(tmp_path, STORED) == before
    fetch_list(NAME, max_removed_fraction=1)
    assert rows(tmp_path, COUNTS) == [("company", 12)]


def test_chosen_kinds(sandbox: Sandbox, tmp_path: Path) -> None:
    """Those that are not named stay; a kind may be called otherwise from one sync to the next."""
    fetch_list(NAME)
    sandbox.clear()
    for number in (GROUP_ID, TEAM):
        sandbox.population.groups[number].add("new", {})
    assert run(["fetch", NAME, "--group", f"Firma=ü={TEAM}", "-p", "--no-progress"]) == 0
    assert {number for number, _ in asked(sandbox)} == {TEAM}
    assert rows(tmp_path, COUNTS) == [("Firma=ü", 12), ("company", 12)]
    fetch_list(NAME, groups={"company": int(GROUP_ID)}, where='properties["plan"] == "pro"', output_properties=["plan"])
    assert rows(tmp_path, COUNTS) == [("Firma=ü", 12), ("company", 12)], "whom a filter leaves out stays"
    filters = "select distinct sync_filter from mixpanel.groups"
    assert rows(tmp_path, filters) == [(None,)], "a full sync has brought them"


def test_a_kind_without_a_group_is_told(sandbox: Sandbox, capfd: pytest.CaptureFixture[str]) -> None:
    """Red when it is silent: a number with a slip would look like a kind of which nobody has any."""
    sandbox.population.groups["404"] = Population(0)
    assert run(["fetch", NAME, "--group", "slip=404", "--group", f"company={GROUP_ID}"]) == 0
    assert 'there are no groups of "404": if there should be, check the number' in capfd.readouterr().err


def test_rows_that_are_no_groups_are_rejected(sandbox: Sandbox, tmp_path: Path) -> None:
    """They remove nothing of their kind, and go with its next whole sync alone."""
    fetch_list(NAME)
    before = truth(sandbox)
    sandbox.faults = [Fault("engage", "rows-without-id:2", page=1)]
    company = sandbox.population.groups[GROUP_ID]
    company.remove(next(iter(company.profiles()))[0])
    with pytest.raises(IncompleteSyncError, match=r"2 rows are no groups and lie in mixpanel\.rejected_rows"):
        fetch_list(NAME)
    assert rows(tmp_path, STORED) == before
    rejected = "select part, row_number, reason from mixpanel.rejected_rows where asset = 'groups' order by all"
    assert rows(tmp_path, rejected) == [(GROUP_ID, 5, "no $distinct_id"), (GROUP_ID, 6, "no $distinct_id")]
    fetch_list(NAME, groups={"the team": TEAM})
    assert len(rows(tmp_path, rejected)) == 2
    fetch_list(NAME)
    assert rows(tmp_path, rejected) == []
    assert rows(tmp_path, STORED) == truth(sandbox)


def page_of(group: str = TEAM, **chosen: Any) -> Page:
    """One kind, with one attempt more and no wait."""
    client = MixpanelClient(settings.project(), policy=RetryPolicy(max_attempts=2, base_seconds=0))
    query = GroupsQuery((("company", GROUP_ID), ("team", TEAM)), **chosen)
    try:
        return fetch_page(
            client, query, 2, group, client.retrier(logging.getLogger(__name__)), lambda page: None, Path()
        )
    finally:
        client.close()


@pytest.mark.parametrize(
    "fault",
    [
        *("session-lost", "short-page", "empty-page", "page-size:3", "status:503", "cut", "session:other", "not-json"),
        *("page-number:7", "repeated-page", "repeated-rows", "reset", "gzip-cut", "json-error-200", "no-results"),
        *("duplicate-rows", "limited:concurrency"),
    ],
)
def test_one_fault_costs_no_group(sandbox: Sandbox, fault: str) -> None:
    sandbox.faults = [Fault("engage", fault, page=1, retry_after=0 if fault.startswith("limited") else None)]
    page = page_of()
    served = [group_id for group_id, _ in sandbox.population.groups[TEAM].profiles()]
    assert sorted({row.key for row in page.rows}) == sorted(served)
    assert (page.missing, page.part) == (0, TEAM)


def test_what_stays_missing_is_counted(sandbox: Sandbox, tmp_path: Path) -> None:
    """A few may be deleted meanwhile: told, and removing none; more than may be missing is a kind that failed."""
    fetch_list(NAME)
    before = rows(tmp_path, STORED)
    sandbox.faults = [Fault("engage", "short-page:1", page=1, times=None)]
    assert page_of().missing == 1
    with pytest.raises(IncompleteSyncError, match="2 of 3 pages are missing: 1, 2"):
        fetch_list(NAME)
    assert rows(tmp_path, STORED) == before
    reasons = rows(tmp_path, "select reason from mixpanel.missing_groups order by all")
    assert reasons == [("page 1: 11 of 12 rows came",), ("page 2: 10 of 11 rows came",)]
    fetch_list(NAME, max_missing_fraction=0.1)
    assert rows(tmp_path, STORED) == before
    assert rows(tmp_path, "from mixpanel.missing_groups") == []
    sandbox.faults = []
    fetch_list(NAME)
    assert rows(tmp_path, STORED) == before


def test_what_never_ends_is_ended(sandbox: Sandbox) -> None:
    """Red without the look at new ids: a server that sends full pages for ever is asked for ever."""
    faults = [Fault("engage", "total:missing", page=0, times=None), Fault("engage", "repeated-page", times=None)]
    sandbox.faults = faults
    with pytest.raises(MixpanelError, match=r"^page 2: group team: the server keeps sending the rows of another page"):
        page_of()
    assert len(sandbox.journal.requests) == 4, "two sessions"


def test_a_total_may_be_that_of_one_answer(sandbox: Sandbox) -> None:
    """Red when the first page is taken for all."""
    sandbox.faults = [Fault("engage", "total:5", page=0, times=None)]
    assert len(page_of().rows) == 11


def test_a_refusal_says_what_to_do(sandbox: Sandbox, tmp_path: Path) -> None:
    for status, words in ((401, "refused the credentials"), (403, "may read"), (404, "404"), (400, "check groups")):
        sandbox.faults = [Fault("engage", f"status:{status}", body="group not found", times=None)]
        with pytest.raises(MixpanelError, match=f"^page 2: group team: [^\n]*{words}"):
            page_of()
    sandbox.faults = [Fault("engage", "status:402", times=None)]
    with pytest.raises(PlanError, match="no page of 3 came, nothing was stored or removed: page 1: group company: the"):
        fetch_list(NAME)
    assert not (tmp_path / "mp.duckdb").exists()


def test_what_may_not_be_kept_reaches_no_table(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MP_INCLUDE_PROPERTIES", "plan")
    monkeypatch.setenv("MP_HASH_PROPERTIES", "$distinct_id")
    fetch_list(NAME, groups={"company": GROUP_ID})
    assert rows(tmp_path, "select distinct json_keys(properties), length(group_id) from mixpanel.groups") == [
        (["plan"], 64)
    ]


def test_the_cost_is_known_before_the_first_kind(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Red when kinds are taken for pages of one session, which count nowhere."""
    monkeypatch.setenv("MP_HOURLY_QUERIES", "1")
    with pytest.raises(QuotaError, match="2 requests, 2 of them counted: 1 of the hour's 1 are left"):
        fetch_list(NAME)
    assert sandbox.journal.requests == []


def test_another_projects_groups_are_not_asked_for(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Red when what failed of one project is asked of another."""
    sandbox.faults = [Fault("engage", "status:403", times=1)]
    with pytest.raises(IncompleteSyncError):
        fetch_list(NAME)
    monkeypatch.setenv("MP_PROJECT_ID", "999")
    with pytest.raises(ConfigurationError, match="the failed pages are of "):
        fetch_list(NAME, retry_failed_pages=True)


def test_where_no_kind_is_named_the_asset_is_green_and_leaves_what_is_stored(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red when it fails: *Materialize all* would end red in every project without groups."""
    fetch_list(NAME)
    sandbox.clear()
    monkeypatch.delenv("MP_GROUPS")
    with DagsterInstance.get() as instance:
        result = build_defs().resolve_job_def("sync_groups").execute_in_process(instance=instance)
        assert result.success
        lines = [entry.user_message for entry in instance.all_logs(result.run_id)]
    assert [line for line in lines if line.startswith("no group is named: set MP_GROUPS, or groups; nothing is asked")]
    assert asked(sandbox) == []
    assert rows(tmp_path, "select count(*) from mixpanel.groups") == [(23,)]


def test_bad_input_asks_nothing(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """In one line, before the first request; no number goes through a float."""
    for chosen, words in (
        ({"groups": {}}, "no group is named: set MP_GROUPS, or groups"),
        ({"groups": {"a": -1.405e18}}, "groups: a must be a whole number, written as text"),
        ({"groups": {"a": "0x7"}}, "groups: a must be a whole number"),
        ({"groups": {"a": True}}, "groups: a must be a whole number"),
        ({"groups": {"a": 2**63}}, "must be a whole number of 64 bits"),
        ({"groups": {" ": "7"}}, "a name has 1 to 255 characters"),
        ({"groups": {"a": "7", "b": 7}}, "groups: data_group_id '7' is there twice"),
        ({"groups": ["a"]}, "groups must be names with numbers"),
        ({"where": " "}, "where is empty"),
        ({"page_size": 0}, "page_size must be 1 or more"),
        ({"cohort_id": 7}, "groups knows no cohort_id"),
        ({"on_quota": "maybe"}, "on_quota must be stop or wait"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            fetch_list(NAME, **chosen)
    for text in ("company", "company=x=", "a=1,a=2", '{"a": 1.5}', '{"a": [1]}', "[1]", "a=-1.4e18", "a=007"):
        monkeypatch.setenv("MP_GROUPS", text)
        with pytest.raises(ConfigurationError, match=r"MP_GROUPS names no groups|must be a whole number of 64 bits"):
            fetch_list(NAME)
    monkeypatch.setenv("MP_GROUPS", "")
    assert run(["fetch", NAME, "--group", "company"]) == 3
    assert run(["fetch", NAME]) == 3
    assert run(["fetch", "profiles", "--data-group-id", "-5"]) == 3
    assert "groups are an asset of their own now" in capfd.readouterr().err
    assert sandbox.journal.requests == []


def test_groups_of_json_and_of_a_further_project(monkeypatch: pytest.MonkeyPatch) -> None:
    """Red when a number is read as a float, or one project's groups are asked of another."""
    monkeypatch.setenv("MP_GROUPS", f'{{"a, b": {GROUP_ID}, "c": "7"}}')
    assert settings.groups() == {"a, b": GROUP_ID, "c": "7"}
    assert settings.groups(Variables({"MP_PROJECT_ID": "2"})) == {}
    project = copied_project("eu", "", "", Variables({"MP_PROJECT_ID": "2", "MP_GROUPS": '{"x": -5}'}))
    assert GroupsConfig().asked(project.variables).groups == (("x", "-5"),)
    build_defs(name="eu", project_id=2, groups={"x": -5})
    with pytest.raises(ConfigurationError, match="groups names no groups: write it as"):
        build_defs(name="eu", project_id=2, groups={"x": 1.5})  # type: ignore[dict-item]


def test_a_file_of_before_is_taken_over(sandbox: Sandbox, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """By whatever is stored first, with a line; the groups get the name of the settings once they are synced."""
    fetch_profiles()
    with duckdb.connect(str(tmp_path / "mp.duckdb")) as connection:
        connection.execute("alter table mixpanel.profiles add column data_group_id varchar")
        connection.execute(
            "insert into mixpanel.profiles by name select * replace ('acme' as distinct_id, '7' as data_group_id) "
            "from mixpanel.profiles limit 1"
        )
    assert run(["fetch", "profiles"]) == 0
    assert "1 groups moved from mixpanel.profiles to mixpanel.groups" in capfd.readouterr().err
    assert rows(tmp_path, "select count(*) from mixpanel.profiles") == [(4,)]
    assert rows(tmp_path, "select group_key, group_id from mixpanel.groups") == [("7", "acme")]
    sandbox.population.groups[TEAM].add("acme", {})
    fetch_list(NAME)
    assert rows(tmp_path, COUNTS) == [("company", 12), ("the team", 12)]
