"""Projects whose events carry the wall clock of their zone: `event_time` is UTC, and a day stays the project's day."""

import datetime
import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pytest

from mixpanel_assets import fetch_events
from mixpanel_assets.cli.main import run
from mixpanel_assets.errors import ConfigurationError, IncompleteSyncError
from mixpanel_assets.sandbox import Fault, Population, Sandbox
from mixpanel_assets.streams.events.chunking import Chunk, EventsPlan
from mixpanel_assets.streams.events.query import EventsQuery
from mixpanel_assets.streams.events.wall_clock import instant

# Dagster's own code calls it while it sets up a resource.
pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run is deprecated")

SPRING, AUTUMN = "2024-03-31", "2024-10-27"
# Wall clock of Berlin -> UTC.
CLOCKS = {
    "2024-03-31 00:00:00": "2024-03-30 23:00:00",
    "2024-03-31 01:59:59.999": "2024-03-31 00:59:59.999",
    "2024-03-31 02:30:00": "2024-03-31 01:30:00",  # skipped: as far behind the change as it is behind two o'clock
    "2024-03-31 03:00:00": "2024-03-31 01:00:00",
    "2024-03-31 23:59:59.999": "2024-03-31 21:59:59.999",
    "2024-10-27 00:00:00": "2024-10-26 22:00:00",
    "2024-10-27 02:30:00": "2024-10-27 00:30:00",  # twice: the first
    "2024-10-27 03:00:00": "2024-10-27 02:00:00",
    "2024-10-27 23:00:00": "2024-10-27 22:00:00",
}


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    with Sandbox(Population(events_per_day=0)) as sandbox:
        for name, value in {**sandbox.environment, "DAGSTER_HOME": str(tmp_path / "home")}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("MP_DUCKDB_PATH", str(tmp_path / "mp.duckdb"))
        monkeypatch.setenv("MP_TIMEZONE", "Europe/Berlin")
        for name in ("MP_EVENTS_START_DATE", "MP_EVENT_TIMES"):
            monkeypatch.delenv(name, raising=False)
        for day in (SPRING, AUTUMN):
            sandbox.population.replace_events(day, [event(clock) for clock in CLOCKS if clock.startswith(day)])
        yield sandbox


def event(clock: str) -> tuple[str, dict[str, Any]]:
    """An event as such a project serves it: its wall clock as if it were UTC."""
    served = datetime.datetime.fromisoformat(f"{clock}+00:00").timestamp()
    return "Order", {"time": round(served * 1000), "distinct_id": "a", "$insert_id": clock, "clock": clock}


def stored(tmp_path: Path) -> dict[str, tuple[str, str]]:
    with duckdb.connect(str(tmp_path / "mp.duckdb"), read_only=True) as connection:
        rows = connection.execute("select insert_id, event_time::varchar, day::varchar from mixpanel.events").fetchall()
    assert len({row[0] for row in rows}) == len(rows), "no event twice"
    return {clock: (moment, day) for clock, moment, day in rows}


@pytest.mark.parametrize(
    ("zone", "first", "last"),
    [
        ("America/New_York", "2023-03-10", "2023-03-14"),
        ("America/New_York", "2023-11-03", "2023-11-07"),
        ("Australia/Lord_Howe", "2024-04-05", "2024-04-09"),  # by half an hour
        ("Asia/Kathmandu", "2024-05-01", "2024-05-02"),  # never, and 5:45 from UTC
        ("Pacific/Apia", "2011-12-29", "2011-12-31"),  # one day is skipped
        ("Africa/Casablanca", "2024-03-01", "2024-05-01"),  # twice within the range
    ],
)
def test_every_minute_is_the_instant_that_python_knows(zone: str, first: str, last: str) -> None:
    clock = datetime.datetime.fromisoformat(first)
    minutes = int((datetime.datetime.fromisoformat(last) - clock) / datetime.timedelta(minutes=1)) + 24 * 60
    clocks = [clock + datetime.timedelta(minutes=minute) for minute in range(0, minutes, 5)]
    expected = [
        each.replace(tzinfo=ZoneInfo(zone)).astimezone(datetime.timezone.utc).replace(tzinfo=None) for each in clocks
    ]
    with duckdb.connect() as connection:
        query = f"select {instant('clock', ZoneInfo(zone), first, last)} from (select unnest(?::timestamp[]) as clock)"
        assert [moment for (moment,) in connection.execute(query, [clocks]).fetchall()] == expected


@pytest.mark.parametrize("parallel", [False, True])
def test_event_time_is_utc_and_the_day_is_the_projects(
    sandbox: Sandbox,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    parallel: bool,  # noqa: FBT001
) -> None:
    """Red when the wall clock is taken for UTC; or the day from `event_time`, which makes events fall out of it."""
    monkeypatch.setenv("MP_EVENT_TIMES", "project")
    for _ in range(2):
        for day in (SPRING, AUTUMN):
            result = fetch_events(day, day, parallel=parallel)
            assert not result.has_failures
    assert stored(tmp_path) == {clock: (moment, clock[:10]) for clock, moment in CLOCKS.items()}
    assert run(["status"]) == 0
    with duckdb.connect(str(tmp_path / "mp.duckdb"), read_only=True) as connection:
        [(raw,)] = connection.execute(
            "select properties ->> 'time' from mixpanel.events where insert_id = '2024-10-27 03:00:00'"
        ).fetchall()
        assert raw == "1729998000000", "as served"


def test_both_faces_have_the_setting_and_utc_is_the_default(
    sandbox: Sandbox, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    as_served = {clock: (clock, clock[:10]) for clock in CLOCKS if clock.startswith(SPRING)}
    fetch_events(SPRING, SPRING)
    assert stored(tmp_path) == as_served
    assert run(["fetch", "events", "--from", SPRING, "--to", SPRING, "--times", "project"]) == 0
    assert stored(tmp_path) == {clock: (CLOCKS[clock], SPRING) for clock in as_served}, (
        "a day is right once it is synced again"
    )
    fetch_events(SPRING, SPRING, times="utc")
    assert stored(tmp_path) == as_served
    assert json.loads(capfd.readouterr().out)["rows"] == len(as_served)


def test_a_retry_reads_the_clock_too(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MP_EVENT_TIMES", "project")
    sandbox.faults = [Fault("export", "status:403", from_date=SPRING)]
    assert fetch_events(SPRING, "2024-04-01", chunk_days=1, parallel=True).has_failures
    assert run(["retry", "events"]) == 0
    assert stored(tmp_path)["2024-03-31 03:00:00"] == ("2024-03-31 01:00:00", SPRING)


def test_a_guarded_day_is_compared_with_its_own_rows(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red when the keys that came have the wall clock, and those stored have UTC: the whole day seems gone."""
    monkeypatch.setenv("MP_EVENT_TIMES", "project")
    fetch_events(SPRING, SPRING)
    sandbox.population.replace_events(SPRING, [event("2024-03-31 23:00:00")])
    with pytest.raises(IncompleteSyncError, match="1 came where 5 are stored"):
        fetch_events(SPRING, SPRING, parallel=True)
    sandbox.population.replace_events(SPRING, [event(clock) for clock in CLOCKS if clock.startswith(SPRING)][1:])
    assert not fetch_events(SPRING, SPRING, parallel=True).has_failures
    assert len(stored(tmp_path)) == sum(clock.startswith(SPRING) for clock in CLOCKS) - 1


def test_a_table_without_days_is_taken_over(sandbox: Sandbox, tmp_path: Path) -> None:
    """A file of before: its days are those of `event_time`."""
    fetch_events(SPRING, SPRING)
    with duckdb.connect(str(tmp_path / "mp.duckdb")) as connection:
        connection.execute("alter table mixpanel.events drop column day")
    fetch_events(AUTUMN, AUTUMN)
    assert stored(tmp_path) == {clock: (clock, clock[:10]) for clock in CLOCKS}


def test_another_kind_is_refused_before_the_first_request(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match=r"^times must be utc or project, not 'local'$"):
        fetch_events(SPRING, SPRING, times="local")
    monkeypatch.setenv("MP_EVENT_TIMES", "UTC+1")
    with pytest.raises(ConfigurationError, match=r"^MP_EVENT_TIMES must be utc or project, not 'UTC\+1'$"):
        fetch_events(SPRING, SPRING)
    assert not sandbox.journal.requests


def test_an_order_carries_its_chunk_and_not_the_plan() -> None:
    """Red when it holds the plan: 1,095 chunks of a day took 53 MB of handles."""
    first = datetime.date(2023, 1, 1)
    days = [(first + datetime.timedelta(days=n)).isoformat() for n in range(1095)]
    plan = EventsPlan(
        "run", tuple(Chunk(day, day, EventsQuery()) for day in days), datetime.datetime.now(datetime.timezone.utc)
    )
    assert len(pickle.dumps(plan.order(7))) < 1000
