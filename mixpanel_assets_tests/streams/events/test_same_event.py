"""Events that come again under another distinct_id, since identities were merged: the same events, over real HTTP."""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import pytest

from mixpanel_assets import fetch_events
from mixpanel_assets.cli.main import run
from mixpanel_assets.client.property_filter import digest
from mixpanel_assets.errors import ConfigurationError
from mixpanel_assets.sandbox import Fault, Population, Sandbox

# Dagster's own code calls it while it sets up a resource.
pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run is deprecated")

DAY, NEXT = "2026-02-10", "2026-02-11"
WHERE = 'properties["plan"] == "pro"'


def sent(number: int, who: str, **more: Any) -> tuple[str, dict[str, Any]]:
    """An event of that day, as it was sent."""
    properties = {"time": 1_770_700_000_000 + number, "distinct_id": who, "plan": "pro", "n": number}
    return "Order", {**properties, "$insert_id": f"i{number}", **more}


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    with Sandbox(Population(events_per_day=0)) as sandbox:
        for name, value in {**sandbox.environment, "DAGSTER_HOME": str(tmp_path / "home")}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("MP_DUCKDB_PATH", str(tmp_path / "mp.duckdb"))
        for name in ("MP_EVENTS_START_DATE", "MP_TIMEZONE"):
            monkeypatch.delenv(name, raising=False)
        sandbox.population.replace_events(DAY, [sent(n, "anon-a" if n < 5 else "anon-b") for n in range(9)])
        yield sandbox


def stored(tmp_path: Path, what: str = "distinct_id, insert_id") -> list[Any]:
    with duckdb.connect(str(tmp_path / "mp.duckdb"), read_only=True) as connection:
        return sorted(connection.execute(f"select {what} from mixpanel.events").fetchall())


def merged(who: str) -> list[Any]:
    """The nine events, those of anon-a under another id."""
    return sorted((who if n < 5 else "anon-b", f"i{n}") for n in range(9))


@pytest.mark.parametrize("parallel", [False, True])
def test_a_filtered_sync_replaces_what_an_event_was_before(
    sandbox: Sandbox,
    tmp_path: Path,
    parallel: bool,  # noqa: FBT001
) -> None:
    """Red without `_superseded`: 14 rows of nine events."""
    fetch_events(DAY, NEXT, where=WHERE)
    sandbox.population.merge(DAY, ["anon-a"], "user-1")
    fetch_events(DAY, NEXT, where=WHERE, parallel=parallel)
    assert stored(tmp_path) == merged("user-1")
    fetch_events(DAY, NEXT, where=WHERE, parallel=parallel)
    assert stored(tmp_path) == merged("user-1"), "again, and nothing changes"


def test_the_command_replaces_them_too(sandbox: Sandbox, tmp_path: Path) -> None:
    asked = ["fetch", "events", "--from", DAY, "--to", NEXT, "--where", WHERE, "-e", "Order"]
    assert run(asked) == 0
    sandbox.population.merge(DAY, ["anon-a"], "user-1")
    assert run(asked) == 0
    assert stored(tmp_path) == merged("user-1")


def test_ids_that_are_merged_again_and_again(sandbox: Sandbox, tmp_path: Path) -> None:
    """Red when the row is looked for under the id that it was last stored with."""
    for who in ("user-1", "user-2", "user-3"):
        fetch_events(DAY, DAY, where=WHERE)
        sandbox.population.merge(DAY, ["anon-a", "user-1", "user-2"], who)
    fetch_events(DAY, DAY, where='properties["plan"] != "free"')
    assert stored(tmp_path) == merged("user-3")


def test_each_merge_names_the_id_before_it(sandbox: Sandbox, tmp_path: Path) -> None:
    """Red when only rows that name the same id before are one event."""
    ids = ["anon-a", "user-1", "user-2"]
    fetch_events(DAY, DAY, where=WHERE)
    for before, who in pairwise(ids):
        named = {"$distinct_id_before_identity": before}
        sandbox.population.replace_events(
            DAY, [sent(n, who, **named) if n < 5 else sent(n, "anon-b") for n in range(9)]
        )
        fetch_events(DAY, DAY, where=WHERE)
        assert stored(tmp_path) == merged(who)
    # The merge is taken back. Red when only the id that a row names tells what it was.
    sandbox.population.replace_events(DAY, [sent(n, "user-1" if n < 5 else "anon-b") for n in range(9)])
    fetch_events(DAY, DAY, where=WHERE)
    assert stored(tmp_path) == merged("user-1")


@pytest.mark.parametrize("where", [None, WHERE])
def test_one_answer_that_has_both(sandbox: Sandbox, tmp_path: Path, where: str | None) -> None:
    """Red when a row replaces only what came before; and without the condition on `old.before`: none of two stays."""
    named = {"$distinct_id_before_identity": "anon-a", "$is_reshuffled": True}
    crossed = [
        sent(20, "x", **{"$distinct_id_before_identity": "y"}),
        sent(20, "y", **{"$distinct_id_before_identity": "x"}),
    ]
    sandbox.population.add_events(DAY, [sent(0, "user-1", **named), sent(1, "user-1", **named), *crossed])
    result = fetch_events(DAY, DAY, where=where)
    expected = [("user-1" if n < 2 else "anon-a" if n < 5 else "anon-b", f"i{n}") for n in range(9)]
    assert stored(tmp_path) == sorted([*expected, ("x", "i20"), ("y", "i20")])
    assert stored(tmp_path, "count(*)") == [(result.rows,)]  # type: ignore[union-attr]
    with duckdb.connect(str(tmp_path / "mp.duckdb"), read_only=True) as connection:
        assert connection.execute("select rows, duplicates from mixpanel.event_days").fetchall() == [(11, 2)]


def test_a_row_of_a_wrong_clock_is_replaced(sandbox: Sandbox, tmp_path: Path) -> None:
    """Red when a row that was stored in the future is newer than what comes."""
    fetch_events(DAY, DAY, where=WHERE)
    with duckdb.connect(str(tmp_path / "mp.duckdb")) as connection:
        connection.execute("update mixpanel.events set synced_at = now() + interval 1 year")
    sandbox.population.merge(DAY, ["anon-a"], "user-1")
    fetch_events(DAY, DAY, where=WHERE)
    assert stored(tmp_path) == merged("user-1")


def test_the_id_before_is_kept_as_the_id_is(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Red without ID_BEFORE in `for_events`: among what is included, and among what is hashed."""
    monkeypatch.setenv("MP_INCLUDE_PROPERTIES", "plan")
    monkeypatch.setenv("MP_HASH_PROPERTIES", "distinct_id")
    fetch_events(DAY, DAY, where=WHERE)
    sandbox.population.merge(DAY, ["anon-a"], "user-1")
    fetch_events(DAY, DAY, where=WHERE)
    names = {digest(name.encode(), "") for name in ("user-1", "anon-b")}
    assert len(stored(tmp_path)) == 9
    assert {who for who, _ in stored(tmp_path)} == names
    monkeypatch.delenv("MP_INCLUDE_PROPERTIES")
    sandbox.journal.clear()
    monkeypatch.setenv("MP_EXCLUDE_PROPERTIES", "$distinct_id_before_identity")
    with pytest.raises(ConfigurationError, match=r"exclude_properties: with where, '.distinct_id_before_identity' is"):
        fetch_events(DAY, DAY, where=WHERE)
    monkeypatch.delenv("MP_EXCLUDE_PROPERTIES")
    monkeypatch.setenv("MP_HASH_PROPERTIES", "$distinct_id_before_identity")
    with pytest.raises(ConfigurationError, match=r"hash_properties: with where, '.distinct_id_before_identity' is"):
        fetch_events(DAY, DAY, where=WHERE)
    assert sandbox.journal.requests == []


def test_a_retry_replaces_them_too(sandbox: Sandbox, tmp_path: Path) -> None:
    fetch_events(DAY, DAY, where=WHERE)
    sandbox.population.merge(DAY, ["anon-a"], "user-1")
    sandbox.faults = [Fault("export", "status:403", from_date=DAY)]
    fetch_events(DAY, NEXT, where=WHERE, parallel=True, chunk_days=1)
    assert len({who for who, _ in stored(tmp_path)}) == 2
    fetch_events(DAY, NEXT, parallel=True, retry_failed_ranges=True)
    assert stored(tmp_path) == merged("user-1")


def test_without_insert_id_the_rest_of_the_event_tells(sandbox: Sandbox, tmp_path: Path) -> None:
    """Red when the content with the properties of the merge is compared; or when none is: two events would be one."""
    twins = [sent(1, "anon-a", **{"$insert_id": None, "page": page}) for page in ("x", "y")]
    for _, properties in twins:
        del properties["$insert_id"]
    sandbox.population.replace_events(DAY, twins)
    fetch_events(DAY, DAY, where=WHERE)
    sandbox.population.merge(DAY, ["anon-a"], "user-1")
    fetch_events(DAY, DAY, where=WHERE)
    assert stored(tmp_path, "distinct_id, properties ->> 'page'") == [("user-1", "x"), ("user-1", "y")]


def test_nothing_else_is_taken_for_the_event_before(sandbox: Sandbox, tmp_path: Path) -> None:
    """Red when a single member of the key is left out of the comparison."""
    fetch_events(DAY, DAY, where=WHERE)
    was = {"distinct_id": "user-1", "$distinct_id_before_identity": "anon-a", "$is_reshuffled": True}
    others = [
        ("Refund", {**sent(0, "anon-a")[1], **was}),
        ("Order", {**sent(1, "anon-a")[1], **was, "time": 1_770_700_900_000}),
        ("Order", {**sent(2, "anon-a")[1], **was, "$insert_id": "other"}),
        ("Order", {**sent(3, "anon-a")[1], **was, "$distinct_id_before_identity": "anon-z"}),
        ("Order", {**sent(4, "anon-a")[1], **was, "$distinct_id_before_identity": None}),
        ("Order", {**sent(4, "anon-a")[1], **was, "$distinct_id_before_identity": 4, "n": 40}),
    ]
    sandbox.population.replace_events(DAY, others)
    fetch_events(DAY, DAY, where='properties["other"] == 1 or properties["plan"] == "pro"')
    # The last two share their key, and are one row.
    assert len(stored(tmp_path)) == 9 + 5


def test_what_was_asked_for_later_stays(sandbox: Sandbox, tmp_path: Path) -> None:
    """The day as a whole, whatever it was before: a usual sync replaces it."""
    fetch_events(DAY, DAY)
    sandbox.population.merge(DAY, ["anon-a"], "user-1")
    fetch_events(DAY, DAY)
    assert stored(tmp_path) == merged("user-1")
    fetch_events(DAY, DAY, events=["Order"])
    assert stored(tmp_path) == merged("user-1")
