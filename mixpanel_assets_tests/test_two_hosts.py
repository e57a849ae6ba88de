"""Two hosts on one Postgres, each with folders of its own, and a Mixpanel that counts what they ask."""

import sys
from pathlib import Path

import pytest

from mixpanel_assets.cli.main import run
from mixpanel_assets.client.start_rate import MOST_STARTS
from mixpanel_assets.errors import ConfigurationError
from mixpanel_assets.pools import ENGAGE_POOL, POOL_LIMITS
from mixpanel_assets.resources import warehouse_at
from mixpanel_assets.sandbox import Fault, Limits, Population, Sandbox
from mixpanel_assets.streams.events.assets import EVENTS_KEY
from mixpanel_assets.streams.owed import refuse_other_number
from mixpanel_assets_tests.hosts import Host
from mixpanel_assets_tests.postgres import Database, needs_postgres

pytestmark = [needs_postgres, pytest.mark.process]

EACH, EXPORTS = 12, 14
# Both in one process, which is as long in starting as in syncing.
BOTH = """
import sys
from mixpanel_assets.cli.main import run
how = "--parallel", "--no-progress"
days = "--from", f"{sys.argv[1]}-01", "--to", f"{sys.argv[1]}-12", "--chunk-days", "1"
sys.exit(run(["fetch", "profiles", *how]) * 10 + run(["fetch", "events", *days, *how]))
"""


def test_two_hosts_keep_mixpanels_limits_together(tmp_path: Path, database: Database) -> None:
    """Twelve exports each, of fourteen that the hour has; twelve pages each, five of both at a time.

    Red with the files of each host: 24 exports are asked for, six in a second, and ten are refused.
    """
    population = Population(profiles=120, events_per_day=3)
    limits = Limits(exports_per_hour=EXPORTS)
    with Sandbox(population, limits=limits, page_size=10, latency=0.6) as sandbox:
        more = {**sandbox.environment, "MP_HOURLY_EXPORTS": str(EXPORTS)}
        hosts = [Host.make(tmp_path / name, database) for name in ("one", "two")]
        started = [
            host.start([sys.executable, "-c", BOTH, month], more)
            for host, month in zip(hosts, ("2026-01", "2026-02"), strict=True)
        ]
        codes = [process.wait(120) for process in started]
        said = [(host.folder / "output").read_text() for host in hosts]
        journal = sandbox.journal
        assert journal.count(status=429) == 0, said
        # Who finds too little left for all of its twelve asks for none.
        assert journal.count("export") in (EACH, EXPORTS), said
        assert any(codes), said
        assert any("of the hour" in text for text in said), said
        starts = journal.starts("export")
        assert min(later - earlier for earlier, later in zip(starts, starts[MOST_STARTS:], strict=False)) >= 1.0
        assert journal.count("engage") == 24
        assert journal.max_in_flight("engage") == POOL_LIMITS[ENGAGE_POOL]


def test_what_one_host_owes_another_does_not_fetch_into_its_own_file(
    tmp_path: Path, database: Database, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Red without refuse_other_number: what the first file lacks comes into the other one, with nothing on record."""
    one, other = (Host.make(tmp_path / name, database) for name in ("one", "other"))
    days = "--from", "2026-01-01", "--to", "2026-01-02", "--chunk-days", "1"
    with Sandbox(Population(profiles=50, events_per_day=3), page_size=10) as sandbox:
        for name, value in {**database.environment, **sandbox.environment}.items():
            monkeypatch.setenv(name, value)

        def on(host: Host, *command: str) -> int:
            monkeypatch.setenv("DAGSTER_HOME", str(host.folder))
            capfd.readouterr()
            return run([*command, "--no-progress"])

        def is_refused(what: str, words: str) -> None:
            asked = len(sandbox.journal.requests)
            assert on(other, "retry", what) == 3
            assert words in capfd.readouterr().err
            assert len(sandbox.journal.requests) == asked

        sandbox.faults.append(Fault("engage", "status:403", page=2, times=1))
        sandbox.faults.append(Fault("export", "status:403", from_date="2026-01-02", times=1))
        assert on(one, "fetch", "profiles") == 1
        assert on(one, "fetch", "events", *days) == 1
        is_refused("profiles", "has nothing of it")
        is_refused("events", "of another host")
        assert on(one, "retry", "profiles") == 0
        # With a file of its own, and so with another number.
        assert on(other, "fetch", "profiles") == 0
        is_refused("events", "of another host")
        warehouse = warehouse_at("", print)
        with one.instance(monkeypatch) as instance, warehouse.reading() as connection:
            event = instance.get_latest_materialization_event(EVENTS_KEY)
            with pytest.raises(ConfigurationError, match="of another host"):
                refuse_other_number(instance, event, connection, warehouse)
        assert on(one, "retry", "events") == 0
