"""Moments, however a project writes them: one instant in UTC, in `last_seen` and in the typed views."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import duckdb
import pytest

from mixpanel_assets import fetch_profiles
from mixpanel_assets.definitions import build_defs
from mixpanel_assets.properties.assets import PROFILE_PROPERTIES_KEY
from mixpanel_assets.sandbox import Population, Sandbox
from mixpanel_assets.storage import instants

# Dagster's own code calls it while it sets up a resource.
pytestmark = pytest.mark.filterwarnings("ignore:InitResourceContext.dagster_run is deprecated")

# As served -> the instant, or None.
SERVED = {
    '"2024-03-09T08:07:06"': "2024-03-09 08:07:06",
    '"2024-03-09T08:07:06Z"': "2024-03-09 08:07:06",
    '"2024-03-09t08:07:06z"': "2024-03-09 08:07:06",
    '"2024-03-09T08:07:06+09:00"': "2024-03-08 23:07:06",
    '"2024-03-09T08:07:06+0900"': "2024-03-08 23:07:06",
    '"2024-03-09T08:07:06-03"': "2024-03-09 11:07:06",
    '"2024-03-09 08:07:06.123456789-03:30"': "2024-03-09 11:37:06.123456",
    '"2024-03-09T08:07+05:45"': "2024-03-09 02:22:00",
    '"2024-03-09 08:07:06 +01:00"': "2024-03-09 07:07:06",
    '"2024-03-09"': "2024-03-09 00:00:00",
    "1709971626": "2024-03-09 08:07:06",
    "1709971626.25": "2024-03-09 08:07:06.25",
    "1709971626123": "2024-03-09 08:07:06.123",
    "1709971626123456": "2024-03-09 08:07:06.123456",
    '"1709971626"': "2024-03-09 08:07:06",
    "0": "1970-01-01 00:00:00",
    "-86400": "1969-12-31 00:00:00",
    '"20240309"': None,
    '"soon"': None,
    '"infinity"': None,
    '""': None,
    '"2024-02-30T00:00:00+01:00"': None,
    "1e300": None,
    "1e19": None,
    "true": None,
    "null": None,
    "[1709971626]": None,
    '{"t":1}': None,
}


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Sandbox]:
    with Sandbox(Population(profiles=0), page_size=10) as sandbox:
        for name, value in {**sandbox.environment, "DAGSTER_HOME": str(tmp_path / "home")}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("MP_DUCKDB_PATH", str(tmp_path / "mp.duckdb"))
        yield sandbox


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "America/St_Johns"])
def test_a_session_in_another_zone_reads_the_same(zone: str) -> None:
    """Red when a text without an offset is cast to TIMESTAMPTZ."""
    query = instants.of_json("served", "'$.t'")
    with duckdb.connect() as connection:
        connection.execute(f"set timezone = '{zone}'")
        for served, instant in SERVED.items():
            found = connection.execute(
                f"select ({query})::varchar from (select ?::json as served)", [f'{{"t":{served}}}']
            ).fetchall()
            assert found == [(instant,)], served


def test_last_seen_is_the_instant(sandbox: Sandbox, tmp_path: Path) -> None:
    """Red with a cast of the text: an offset was dropped, and numbers gave NULL."""
    for number, served in enumerate(SERVED):
        sandbox.population.add(f"user-{number:02d}", f'{{"$last_seen":{served}}}')
    sandbox.population.add("user-none", "{}")
    fetch_profiles(parallel=True)
    with duckdb.connect(str(tmp_path / "mp.duckdb"), read_only=True) as connection:
        found = dict(
            connection.execute("select properties::varchar, last_seen::varchar from mixpanel.profiles").fetchall()
        )
    assert found == {**{f'{{"$last_seen":{served}}}': instant for served, instant in SERVED.items()}, "{}": None}


def test_columns_of_datetimes_are_instants(sandbox: Sandbox, tmp_path: Path) -> None:
    """Red when a value with an offset makes its column text, or when the view drops the offset."""
    moments = ["2024-03-09T08:07:06+09:00", "2024-03-09T08:07:06", "2024-03-09T08:07:06.5-0330", "2024-03-09"]
    for moment in moments:
        sandbox.population.add(f"at {moment}", f'{{"signed_up":"{moment}"}}')
    fetch_profiles(parallel=True)
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        job = build_defs().resolve_implicit_global_asset_job_def()
        assert job.execute_in_process(instance=instance, asset_selection=[PROFILE_PROPERTIES_KEY]).success
    with duckdb.connect(str(tmp_path / "mp.duckdb"), read_only=True) as connection:
        query = "select signed_up, typeof(signed_up) from mixpanel.profiles_wide order by distinct_id"
        found = [(str(moment), type_) for moment, type_ in connection.execute(query).fetchall()]
    assert found == [
        ("2024-03-09 00:00:00", "TIMESTAMP"),
        ("2024-03-09 08:07:06", "TIMESTAMP"),
        ("2024-03-08 23:07:06", "TIMESTAMP"),
        ("2024-03-09 11:37:06.500000", "TIMESTAMP"),
    ]
