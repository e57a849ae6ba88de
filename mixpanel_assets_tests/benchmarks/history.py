"""Disk over many syncs, measured: `python -m mixpanel_assets_tests.benchmarks.history [SYNCS]` prints a Markdown table.

Small syncs of 20 profiles on two pages, one after the other, with `max_mb: 10` for Dagster's history: what the Dagster
home and the DuckDB file take after each fiftieth, and how many runs there are. Beside it the same number of syncs of
which nothing is deleted, at a tenth.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import dagster as dg

from mixpanel_assets.definitions import build_defs
from mixpanel_assets.sandbox import Limits, Population, Sandbox

EVERY = 50
MOST_MB = 10


def megabytes(folder: Path) -> float:
    """What the files of a folder take."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def measure(syncs: int, max_mb: int) -> list[tuple[int, float, float, int, float]]:
    """After so many syncs: MB of history, MB of the DuckDB file, runs, and seconds per sync."""
    found = []
    population, unlimited = Population(profiles=20), Limits(enforce=False)
    with tempfile.TemporaryDirectory() as home, Sandbox(population, page_size=10, limits=unlimited) as sandbox:
        os.environ.update({**sandbox.environment, "DAGSTER_HOME": home, "MP_HOURLY_QUERIES": str(2 * syncs)})
        job = build_defs().resolve_job_def("sync_profiles")
        config = {"resources": {"history": {"config": {"max_mb": max_mb}}}}
        with dg.DagsterInstance.local_temp(home) as instance:
            began = time.monotonic()
            for number in range(1, syncs + 1):
                assert job.execute_in_process(instance=instance, run_config=config).success
                if number % EVERY == 0:
                    seconds = (time.monotonic() - began) / EVERY
                    database = (Path(home) / "mixpanel_data.duckdb").stat().st_size / 1e6
                    found.append(
                        (number, megabytes(Path(home)) - database, database, len(instance.get_runs()), seconds)
                    )
                    began = time.monotonic()
    return found


def main() -> None:
    """Print both tables."""
    syncs = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    for max_mb, number in ((MOST_MB, syncs), (0, max(EVERY, syncs // 10))):
        print(f"| syncs, `max_mb: {max_mb}` | history and staged files | DuckDB file | runs kept | per sync |")
        print("|---|---|---|---|---|")
        for done, history, database, runs, seconds in measure(number, max_mb):
            print(f"| {done} | {history:.1f} MB | {database:.1f} MB | {runs} | {seconds:.2f} s |", flush=True)
        print()


if __name__ == "__main__":
    main()
