"""Who is in which cohort: one page per cohort, of ids alone; a cohort that fails costs only itself."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from mixpanel_assets import fetch_list, settings
from mixpanel_assets.cli.main import run
from mixpanel_assets.client.client import MixpanelClient
from mixpanel_assets.client.retry import RetryPolicy
from mixpanel_assets.errors import (
    ConfigurationError,
    FatalError,
    IncompleteSyncError,
    MixpanelError,
    PlanError,
    QuotaError,
)
from mixpanel_assets.sandbox import Fault, Population, Sandbox
from mixpanel_assets.streams.cohort_members.fetch import fetch_page
from mixpanel_assets.streams.cohort_members.query import CohortMembersQuery
from mixpanel_assets.streams.snapshot.page import Page

# Dagster's own code calls it while it sets up a resource.
pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run is deprecated")

NAME = "cohort_members"
STORED = "select cohort_id, distinct_id from mixpanel.cohort_members order by all"
CHANGES = "select cohort_id, distinct_id, change from mixpanel.cohort_membership_changes order by noticed_at, 1, 2"


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    with Sandbox(Population(profiles=12, cohorts={11: 4, 12: 6})) as sandbox:
        for name, value in {**sandbox.environment, "DAGSTER_HOME": str(tmp_path / "home")}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("MP_DUCKDB_PATH", str(tmp_path / "mp.duckdb"))
        yield sandbox


def rows(tmp_path: Path, query: str) -> list[Any]:
    with duckdb.connect(str(tmp_path / "mp.duckdb"), read_only=True) as connection:
        return connection.execute(query).fetchall()


def people(sandbox: Sandbox) -> list[str]:
    return [distinct_id for distinct_id, _ in sandbox.population.profiles()]


def members(sandbox: Sandbox, *, ghosts: bool = True) -> list[tuple[str, str]]:
    """What the table should hold."""
    ids = people(sandbox)
    found = [(str(number), ids[n]) for number, every in sandbox.population.cohorts.items() for n in range(0, 12, every)]
    more = [(str(number), f"no-profile-{number}-{n}") for number in sandbox.population.cohorts for n in range(3)]
    return sorted(found + (more if ghosts else []))


def asked(sandbox: Sandbox) -> list[Any]:
    """Cohorts in the order in which their members were asked for, page by page."""
    engage = [request.params for request in sandbox.journal.requests if request.endpoint == "engage"]
    assert all(params["output_properties"] == "[]" for params in engage)
    return [json.loads(params["filter_by_cohort"])["id"] for params in engage]


def test_members_of_all_cohorts(sandbox: Sandbox, tmp_path: Path) -> None:
    result = fetch_list(NAME)
    assert (result.rows, result.table) == (len(members(sandbox)), "mixpanel.cohort_members")
    assert rows(tmp_path, STORED) == members(sandbox)
    assert asked(sandbox) == [11, 12]
    fetch_list(NAME, include_all_users=False, page_size=2, max_removed_fraction=1)
    assert rows(tmp_path, STORED) == members(sandbox, ghosts=False)
    columns = rows(tmp_path, "select column_name from (describe mixpanel.cohort_members)")
    assert [name for (name,) in columns] == ["cohort_id", "distinct_id", "synced_at", "sync_filter"]
    assert list((tmp_path / "home" / "staging" / NAME).iterdir()) == []


def test_a_refused_cohort_costs_only_itself(sandbox: Sandbox, tmp_path: Path) -> None:
    """Red when an incomplete sync removes nobody, or removes members of the cohort that failed."""
    fetch_list(NAME)
    before, ids = members(sandbox), people(sandbox)
    # Both cohorts begin with the first person, who leaves them; 12 is refused.
    sandbox.population.remove(ids[0])
    sandbox.faults = [Fault("engage", "status:403", after=1)]
    with pytest.raises(IncompleteSyncError, match="1 of 3 pages are missing: 2; job retry_failed_cohort_member_pages"):
        fetch_list(NAME)
    assert rows(tmp_path, STORED) == [row for row in before if row != ("11", ids[0])]
    [(page, reason)] = rows(tmp_path, "select page_index, reason from mixpanel.missing_cohort_members")
    assert (page, reason.split(": ")[:2]) == (2, ["page 2", "cohort 12"])
    assert "check what MP_USERNAME may read" in reason
    sandbox.clear()
    fetch_list(NAME, retry_failed_pages=True)
    assert ([request.endpoint for request in sandbox.journal.requests], asked(sandbox)) == (["engage"], [12])
    assert rows(tmp_path, STORED) == [row for row in before if row[1] != ids[0]]
    assert rows(tmp_path, CHANGES) == [("11", ids[0], "left"), ("12", ids[0], "left")]
    assert rows(tmp_path, "from mixpanel.missing_cohort_members") == []


def test_who_joined_and_who_left(sandbox: Sandbox, tmp_path: Path) -> None:
    """Members that a cohort has at first are no change; a cohort that is gone, or empty, is left by all."""
    fetch_list(NAME, include_all_users=False)
    assert rows(tmp_path, CHANGES) == []
    ids = people(sandbox)
    sandbox.population.cohorts |= {11: 3, 13: 6}
    fetch_list(NAME, include_all_users=False)
    came, left = [("11", ids[n], "joined") for n in (3, 6, 9)], [("11", ids[n], "left") for n in (4, 8)]
    assert rows(tmp_path, CHANGES) == sorted(came + left), "13 is new"
    del sandbox.population.cohorts[12]
    fetch_list(NAME, include_all_users=False)
    assert rows(tmp_path, CHANGES)[5:] == sorted(("12", ids[n], "left") for n in (0, 6))
    sandbox.clear()
    sandbox.lists.cohorts = [{"id": 11, "name": "a", "count": 4}, {"id": 13, "name": "b", "count": 0}]
    fetch_list(NAME, include_all_users=False)
    assert rows(tmp_path, CHANGES)[7:] == sorted(("13", ids[n], "left") for n in (0, 6))
    assert asked(sandbox) == [11], "one that is empty by its count is not asked for"


def test_chosen_cohorts(sandbox: Sandbox, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """By number or name; what others hold stays; one that is not listed fails alone."""
    fetch_list(NAME)
    sandbox.lists.cohorts = [{"id": 11, "name": "Grüße 🚀", "count": None}, {"id": 12, "name": "b"}, {"id": 13}]
    sandbox.clear()
    assert run(["fetch", NAME, "--cohort-name", "Grüße 🚀", "-c", "99", "--cohort-name", "b%", "--only-profiles"]) == 1
    assert asked(sandbox) == [11]
    assert "2 of 4 pages are missing: 2, 3" in capfd.readouterr().err
    reasons = "select reason from mixpanel.missing_cohort_members order by 1"
    words = "Mixpanel lists no cohort of this number or name: choose another"
    assert [reason for (reason,) in rows(tmp_path, reasons)] == [
        f"page 2: cohort not listed: 99: {words}",
        f"page 3: cohort not listed: b%: {words}",
    ]
    stored = rows(tmp_path, STORED)
    assert [row for row in stored if row[0] == "12"] == [row for row in members(sandbox) if row[0] == "12"]
    assert [row for row in stored if row[0] == "11"] == [
        row for row in members(sandbox, ghosts=False) if row[0] == "11"
    ]


def page_of(cohort: str, **chosen: Any) -> Page:
    """One cohort, with one attempt more and no wait."""
    client = MixpanelClient(settings.project(), policy=RetryPolicy(max_attempts=2, base_seconds=0))
    retrier, query = client.retrier(logging.getLogger(__name__)), CohortMembersQuery(**chosen)
    try:
        return fetch_page(client, query, 1, cohort, retrier, lambda page: None, Path())
    finally:
        client.close()


@pytest.mark.parametrize("cohort", ["011", "\N{ARABIC-INDIC DIGIT ONE}" * 2, "abc", "9" * 4500])
def test_an_id_that_is_no_number_fails_alone(sandbox: Sandbox, cohort: str) -> None:
    """It is not read as the id of another cohort, whose members would be stored as its own."""
    with pytest.raises(FatalError, match="its id is no number"):
        page_of(cohort)
    assert asked(sandbox) == []


@pytest.mark.parametrize("fault", ["session-lost", "short-page", "page-size:3", "status:503", "cut", "session:other"])
def test_a_large_cohort_comes_on_many_pages(sandbox: Sandbox, fault: str) -> None:
    """One fault among them costs no member."""
    sandbox.population.cohorts[11] = 1
    sandbox.faults = [Fault("engage", fault, page=2)]
    page = page_of("11", page_size=5)
    assert sorted(row.key for row in page.rows) == sorted([*people(sandbox), *(f"no-profile-11-{n}" for n in range(3))])
    assert {row.content for row in page.rows} == {None}
    assert sandbox.journal.requests[-1].page == 2


def test_what_contradicts_itself_is_no_cohort(sandbox: Sandbox) -> None:
    for fault, words in (
        ("total:20", "6 of 20 members came"),
        ("short-page", "3 of 6 members came"),
        ("rows-without-id:2", "2 of 6 members have no id"),
        ("empty-page", "0 of 6 members came"),
        ("no-results", "results"),
        ("status:401", "refused the credentials"),
        ("status:402", "no Query API"),
        ("status:404", "404"),
        ("limited:shedding", "429"),
        ("not-json", "JSON"),
        ("cut", "JSON"),
    ):
        sandbox.faults = [Fault("engage", fault, times=None)]
        with pytest.raises(MixpanelError, match=f"^page 1: cohort 11: .*{words}"):
            page_of("11")


def test_an_answer_without_a_total_ends_where_a_page_is_not_full(sandbox: Sandbox) -> None:
    sandbox.faults = [Fault("engage", "total:missing", times=None)]
    for size, requests in ((2, 4), (4, 2), (50, 1)):
        sandbox.clear()
        assert len(page_of("11", page_size=size).rows) == 6
        assert len(sandbox.journal.requests) == requests, size


def test_no_property_and_no_plain_id_is_kept(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The id is hashed where that of profiles is, so that the two still join."""
    monkeypatch.setenv("MP_HASH_PROPERTIES", "$distinct_id")
    fetch_list(NAME, include_all_users=False)
    hashed = {distinct_id for _, distinct_id in rows(tmp_path, STORED)}
    assert all(len(each) == 64 for each in hashed)
    assert len(hashed) == 4


def test_the_cost_is_known_before_the_first_cohort(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """Red when cohorts are taken for pages of one session, which count nowhere."""
    monkeypatch.setenv("MP_HOURLY_QUERIES", "2")
    with pytest.raises(QuotaError, match="2 requests, 2 of them counted: 1 of the hour's 2 are left"):
        fetch_list(NAME)
    assert [request.endpoint for request in sandbox.journal.requests] == ["cohorts/list"]


def test_no_list_no_sync(sandbox: Sandbox, tmp_path: Path) -> None:
    fetch_list(NAME)
    before = rows(tmp_path, STORED)
    for do, error in (("status:402", PlanError), ("status:403", FatalError)):
        sandbox.faults = [Fault("cohorts/list", do, times=None)]
        with pytest.raises(error, match=r"^page 0: "):
            fetch_list(NAME)
    sandbox.faults.clear()
    sandbox.lists.cohorts = [{"name": "no id"}]
    with pytest.raises(FatalError, match="1 of 1 cohorts have no id"):
        fetch_list(NAME)
    assert rows(tmp_path, STORED) == before


def test_bad_input_asks_nothing(sandbox: Sandbox) -> None:
    for chosen, words in (
        ({"cohort_ids": []}, "cohort_ids must name at least one cohort"),
        ({"cohort_ids": [0]}, "each by a positive number"),
        ({"cohort_ids": [True]}, "cohort_ids must be a whole number, not True"),
        ({"cohort_ids": "11"}, "cohort_ids must be a list of whole numbers"),
        ({"cohort_names": ["a", " "]}, "no empty names"),
        ({"page_size": 0}, "page_size must be 1 or more"),
        ({"on_quota": "maybe"}, "on_quota must be stop or wait"),
    ):
        with pytest.raises(ConfigurationError, match=words):
            fetch_list(NAME, **chosen)
    assert sandbox.journal.requests == []
