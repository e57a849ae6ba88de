"""What the executor adds to the pages' own time, measured on the real command.

`python -m mixpanel_assets_tests.benchmarks.executor_overhead [--postgres] [pages:seconds ...]` runs `dagster asset
materialize` on toy_pages.py in a fresh DAGSTER_HOME, once per pair (default: 60:1 60:3 30:1), and prints a table; with
`--postgres` each pair a second time, with the history in a Postgres server of its own on this machine. `ideal` is the
time of a run without any overhead: the pages in rounds of five, and one second for page 0. `steps s` is the time from
the first step to the end of the last, `load` that of the machine before.
"""

import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from mixpanel_assets.pools import ENGAGE_POOL, POOL_LIMITS

# Page 0 and the rounds behind it: (1 + 60 / 5) x 1 s = 13 s, of 3 s pages 39 s.
DEFAULT_PAIRS = ("60:1", "60:3", "30:1")
# Dagster's telemetry costs 7 ms of CPU for each step that begins or ends; the project's instance has it off.
SQLITE = "telemetry: {enabled: false}\n"
POSTGRES = f"{SQLITE}storage: {{postgres: {{postgres_url: {{env: TOY_POSTGRES}}}}}}\n"


@dataclass(frozen=True)
class Measured:
    pages: int
    seconds: float
    whole: float
    before_first_op: float
    steps: float
    load: float

    @property
    def ideal(self) -> float:
        return (1 + math.ceil(self.pages / POOL_LIMITS[ENGAGE_POOL])) * self.seconds

    def row(self, history: str) -> str:
        ratio = self.whole / self.ideal
        return (
            f"{self.pages:>5} {self.seconds:>10.1f} {history:>9} {self.load:>5.1f} {self.whole:>8.1f}"
            f" {self.before_first_op:>16.1f} {self.steps:>8.1f} {self.ideal:>8.1f} {ratio:>6.2f}"
        )


def measure(pages: int, seconds: float, settings: str, variables: Mapping[str, str]) -> Measured:
    with tempfile.TemporaryDirectory() as home:
        Path(home, "dagster.yaml").write_text(settings)
        toy = {"DAGSTER_HOME": home, "TOY_PAGES": str(pages), "TOY_SECONDS": str(seconds)}
        command = [sys.executable, "-m", "dagster", "asset", "materialize", "--select", "toy"]
        command += ["-m", "mixpanel_assets_tests.benchmarks.toy_pages"]
        load, began = os.getloadavg()[0], time.time()
        finished = subprocess.run(
            command, env={**os.environ, **variables, **toy}, capture_output=True, text=True, check=True
        )
        whole = time.time() - began
    first_op = re.search(r"toy: first op at ([\d.]+)", finished.stdout)
    steps = re.search(r"Ran all steps in ([\d.]+) s", finished.stderr)
    if first_op is None or steps is None:
        raise SystemExit("The toy did not say when its first op began; see toy_pages.py.")
    return Measured(pages, seconds, whole, float(first_op[1]) - began, float(steps[1]), load)


def main() -> None:
    chosen = [argument for argument in sys.argv[1:] if argument != "--postgres"]
    print("pages  s per page   history  load  whole s  s before 1st op  steps s  ideal s  ratio")
    with ExitStack() as ended:
        server = None
        if "--postgres" in sys.argv:
            from mixpanel_assets_tests import postgres

            server = ended.enter_context(postgres.server())
        for pair in chosen or DEFAULT_PAIRS:
            pages, seconds = int(pair.split(":")[0]), float(pair.split(":")[1])
            print(measure(pages, seconds, SQLITE, {}).row("SQLite"), flush=True)
            if server is not None:
                url = server.new_database().url
                print(measure(pages, seconds, POSTGRES, {"TOY_POSTGRES": url}).row("Postgres"), flush=True)


if __name__ == "__main__":
    main()
