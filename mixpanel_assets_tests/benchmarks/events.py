"""Events, measured: the whole process of the real command against the sandbox, beside the floor.

`python -m mixpanel_assets_tests.benchmarks.events [millions ...]` (default 1 3) prints Markdown tables:

- so many million events of about 500 bytes over 90 days, in chunks of 7 and of 30 days, into DuckDB. `floor` is what
  the same machine needs at the least: curl fetches the same bytes in one request, then DuckDB reads them with
  `read_json` into one table of two columns. CPU seconds are beside, since others' work does not change them;
- 90 chunks of one day at 2 s latency, with ten workers and with one.

The figures are of one run, on whatever else the machine does; compare within it.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import duckdb

from mixpanel_assets.client.quota import LEDGER_FILE, Ledger
from mixpanel_assets.client.rate_limits import RateLimits
from mixpanel_assets.pools import EXPORT_POOL, POOL_LIMITS
from mixpanel_assets.sandbox import Limits
from mixpanel_assets_tests.benchmarks.served import child_environment, journal, prepare_home, served

FIRST, LAST, DAYS = "2026-01-01", "2026-03-31", 90
AT_ONCE = POOL_LIMITS[EXPORT_POOL]
READ_JSON = """
import duckdb, sys
duckdb.connect(sys.argv[2]).execute(
    "create table events as select * from read_json(?, format = 'newline_delimited', "
    "columns = {event: 'VARCHAR', properties: 'JSON'})", [sys.argv[1]])
"""


@dataclass(frozen=True)
class Measured:
    """One command: its time from start to exit, peak memory, and how its requests ran."""

    seconds: float
    cpu: float
    peak_mb: int
    before_first_request: float
    fetching: float
    in_flight: int


def sync_command(workers: int, chunk_days: int) -> list[str]:
    """The command that CI runs."""
    config = {
        "execution": {"config": {"max_concurrent": workers}},
        "ops": {"mixpanel__events": {"config": {"chunk_days": chunk_days}}},
    }
    command = [sys.executable, "-m", "dagster", "asset", "materialize", "--select", "mixpanel/events"]
    days = ["--partition-range", f"{FIRST}...{LAST}"]
    return [*command, *days, "-m", "mixpanel_assets.definitions", "--config-json", json.dumps(config)]


def run(command: Sequence[str], environment: dict[str, str], home: str) -> tuple[float, float, int]:
    """Seconds, CPU seconds and peak memory in MB of a command that must succeed."""
    with tempfile.TemporaryFile() as said:
        began = time.monotonic()
        child = subprocess.Popen(
            command, env=child_environment(environment, DAGSTER_HOME=home), stdout=said, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.monotonic() - began
        if child.returncode:
            said.seek(0)
            raise SystemExit(f"{said.read().decode()[-3000:]}\nexit {child.returncode}")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss // 1024


def floor(environment: dict[str, str], home: str) -> tuple[float, float]:
    """Seconds and CPU seconds of curl and DuckDB."""
    lines = str(Path(home) / "floor.jsonl")
    query = f"from_date={FIRST}&to_date={LAST}&time_in_ms=true&project_id={environment['MP_PROJECT_ID']}"
    login = f"{environment['MP_USERNAME']}:{environment['MP_SECRET']}"
    url = f"{environment['MP_EXPORT_URL']}/export?{query}"
    fetched = run(["curl", "--silent", "--fail", "--compressed", "-u", login, "-o", lines, url], environment, home)
    read = run([sys.executable, "-c", READ_JSON, lines, str(Path(home) / "floor.duckdb")], environment, home)
    Path(lines).unlink()
    return fetched[0] + read[0], fetched[1] + read[1]


def sync(environment: dict[str, str], home: str, workers: int, chunk_days: int) -> Measured:
    """One run of the asset; the sandbox is asked by nobody else meanwhile."""
    prepare_home(home)
    account = Ledger(Path(home) / LEDGER_FILE).account(
        environment["MP_EXPORT_URL"], environment["MP_PROJECT_ID"], "export"
    )
    # As if Mixpanel had granted more than 60 an hour.
    account.learn(RateLimits(hourly_limit=10_000, window_seconds=3600))
    before = len(journal(environment))
    began = time.monotonic()
    seconds, cpu, peak_mb = run(sync_command(workers, chunk_days), environment, home)
    requests = journal(environment)[before:]
    check(home, sum(request["rows"] for request in requests))
    return Measured(
        seconds=seconds,
        cpu=cpu,
        peak_mb=peak_mb,
        before_first_request=min(request["started"] for request in requests) - began,
        fetching=max(request["ended"] for request in requests) - min(request["started"] for request in requests),
        in_flight=max(request["in_flight"] for request in requests),
    )


def check(home: str, served_rows: int) -> None:
    """Every event that was served is stored once."""
    with duckdb.connect(str(Path(home) / "mixpanel_data.duckdb"), read_only=True) as connection:
        [(rows,)] = connection.execute("select count(*) from mixpanel.events").fetchall()
    if rows != served_rows:
        raise SystemExit(f"{served_rows} events served, {rows} stored")


def compare_with_floor(millions: int) -> None:
    """Rows of the first table: in chunks of a week, and in three chunks."""
    population = {"events_per_day": -(-millions * 1_000_000 // DAYS)}
    limits = Limits(exports_per_hour=10_000)
    with served(population, (FIRST, LAST), limits=limits) as environment:
        for chunk_days in (7, 30):
            with tempfile.TemporaryDirectory() as home:
                least, least_cpu = floor(environment, home)
                ours = sync(environment, home, AT_ONCE, chunk_days)
            print(
                f"| {millions:,},000,000 | {chunk_days} | {ours.seconds:.1f} s | {ours.before_first_request:.1f} s "
                f"| {ours.fetching:.1f} s | {ours.peak_mb} MB | {least:.1f} s | {ours.seconds / least:.2f} "
                f"| {ours.cpu:.1f} / {least_cpu:.1f} s |",
                flush=True,
            )


def compare_workers() -> None:
    """Rows of the second table."""
    seconds = {}
    for workers in (AT_ONCE, 1):
        limits = Limits(exports_per_hour=10_000)
        with (
            tempfile.TemporaryDirectory() as home,
            served({"events_per_day": 100}, (FIRST, LAST), limits=limits, latency=2.0) as environment,
        ):
            ours = sync(environment, home, workers, 1)
        seconds[workers] = ours.seconds
        print(f"| {workers} | {ours.seconds:.1f} s | {ours.fetching:.1f} s | {ours.in_flight} |", flush=True)
    print(f"\n{seconds[1] / seconds[AT_ONCE]:.1f} times faster.", flush=True)


def main() -> None:
    """Print all tables."""
    names = "events | days per chunk | whole process | before the first request | fetching | peak memory | floor"
    print(f"| {names} | ratio | CPU, ours / floor |")
    print("|---|---|---|---|---|---|---|---|---|")
    for millions in [int(argument) for argument in sys.argv[1:]] or [1, 3]:
        compare_with_floor(millions)
    print("\n| workers | 90 chunks of one day at 2 s: whole process | fetching | most in flight |")
    print("|---|---|---|---|")
    compare_workers()


if __name__ == "__main__":
    main()
