"""Profiles, measured: the whole process of the real command against the sandbox, beside the limit and beside a peer.

`python -m mixpanel_assets_tests.benchmarks.profiles [pages:seconds ...]` (default 60:1 60:3) prints Markdown tables:

- a sync of so many pages of 1,000 profiles, in parallel and sequentially. `limit` is what no client can beat: page 0,
  then the other pages five at a time;
- 10,000 profiles at 1 s per page through mixpanel-utils (it fills a list in memory), beside ours (into DuckDB);
- peak memory at 5,000 and at 60,000 profiles.

The figures are of one run, on whatever else the machine does; compare within it.
"""

import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec

from mixpanel_assets.pools import ENGAGE_POOL, POOL_LIMITS
from mixpanel_assets_tests.benchmarks.served import child_environment, journal, prepare_home, served

PAGE_SIZE = 1000
AT_ONCE = POOL_LIMITS[ENGAGE_POOL]
PEER = """
import os
from mixpanel_utils import MixpanelUtils
peer = MixpanelUtils(os.environ["MP_SECRET"], service_account_username=os.environ["MP_USERNAME"],
                     project_id=os.environ["MP_PROJECT_ID"], read_pool_size=5)
peer.formatted_api = os.environ["SANDBOX_URL"] + "/api"
print(len(peer.query_engage()))
"""


@dataclass(frozen=True)
class Measured:
    """One command: its time from start to exit, the time until its first request, and what it used."""

    seconds: float
    before_first_request: float
    in_flight: int
    peak_mb: int


def sync_command(workers: int) -> list[str]:
    """The command that CI runs."""
    config = json.dumps({"execution": {"config": {"max_concurrent": workers}}})
    command = [sys.executable, "-m", "dagster", "asset", "materialize", "--select", "mixpanel/profiles"]
    return [*command, "-m", "mixpanel_assets.definitions", "--config-json", config]


def measure(command: Sequence[str], pages: int, latency: float) -> Measured:
    """Run a command against a fresh sandbox, in a DAGSTER_HOME as after a first run: our settings, empty databases."""
    with (
        tempfile.TemporaryDirectory() as home,
        tempfile.TemporaryFile() as said,
        served({"profiles": pages * PAGE_SIZE}, latency=latency) as environment,
    ):
        variables = child_environment(environment, DAGSTER_HOME=home)
        prepare_home(home)
        began = time.monotonic()
        child = subprocess.Popen(command, env=variables, stdout=said, stderr=subprocess.STDOUT)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - began
        requests = journal(environment)
        rows = sum(request["rows"] for request in requests)
        if child.returncode or rows != pages * PAGE_SIZE:
            said.seek(0)
            raise SystemExit(f"{said.read().decode()[-3000:]}\nexit {child.returncode}, {rows} rows served")
    return Measured(
        seconds=seconds,
        before_first_request=requests[0]["started"] - began,
        in_flight=max(request["in_flight"] for request in requests),
        peak_mb=usage.ru_maxrss // 1024,
    )


def compare_modes(pages: int, latency: float) -> None:
    """Rows of the first table."""
    for mode, workers in (("parallel", AT_ONCE), ("sequential", 1)):
        limit = (1 + math.ceil((pages - 1) / workers)) * latency
        run = measure(sync_command(workers), pages, latency)
        print(
            f"| {pages} x {latency:g} s | {mode} | {run.seconds:.1f} s | {run.before_first_request:.1f} s "
            f"| {limit:.0f} s | {run.seconds / limit:.2f} | {run.in_flight} |",
            flush=True,
        )


def main() -> None:
    """Print all tables."""
    print("| pages | mode | whole process | before the first request | limit | ratio | most in flight |")
    print("|---|---|---|---|---|---|---|")
    for pair in sys.argv[1:] or ("60:1", "60:3"):
        count, latency = pair.split(":")
        compare_modes(int(count), float(latency))
    print("\n| 10,000 profiles at 1 s per page | whole process | peak memory |")
    print("|---|---|---|")
    commands = {"mixpanel_assets, into DuckDB": sync_command(AT_ONCE)}
    if find_spec("mixpanel_utils"):
        commands["mixpanel-utils (read_pool_size=5), into a list"] = [sys.executable, "-c", PEER]
    for name, command in commands.items():
        run = measure(command, 10, 1.0)
        print(f"| {name} | {run.seconds:.1f} s | {run.peak_mb} MB |", flush=True)
    print("\n| profiles | peak memory |")
    print("|---|---|")
    for pages in (5, 60):
        print(f"| {pages * PAGE_SIZE:,} | {measure(sync_command(AT_ONCE), pages, 0.0).peak_mb} MB |", flush=True)


if __name__ == "__main__":
    main()
