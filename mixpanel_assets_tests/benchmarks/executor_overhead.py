"""What the executor adds to the pages' own time, measured on the real command.

`python -m mixpanel_assets_tests.benchmarks.executor_overhead [pages:seconds ...]` runs `dagster asset materialize` on
toy_pages.py in a fresh DAGSTER_HOME, once per pair (default: 60:1 60:3 30:1), and prints a table. `ideal` is the time
of a run without any overhead: the pages in rounds of five, and one second for page 0.
"""

import math
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from mixpanel_assets.pools import ENGAGE_POOL, POOL_LIMITS

# Page 0 and the rounds behind it: (1 + 60 / 5) x 1 s = 13 s, of 3 s pages 39 s.
DEFAULT_PAIRS = ("60:1", "60:3", "30:1")


@dataclass(frozen=True)
class Measured:
    pages: int
    seconds: float
    whole: float
    before_first_op: float

    @property
    def ideal(self) -> float:
        return (1 + math.ceil(self.pages / POOL_LIMITS[ENGAGE_POOL])) * self.seconds

    def row(self) -> str:
        ratio = self.whole / self.ideal
        return (
            f"{self.pages:>5} {self.seconds:>10.1f} {self.whole:>10.1f} {self.before_first_op:>16.1f}"
            f" {self.ideal:>8.1f} {ratio:>6.2f}"
        )


def measure(pages: int, seconds: float) -> Measured:
    with tempfile.TemporaryDirectory() as home:
        # Dagster's telemetry costs 7 ms of CPU for each step that begins or ends; the project's instance has it off.
        Path(home, "dagster.yaml").write_text("telemetry: {enabled: false}\n")
        environment = {**os.environ, "DAGSTER_HOME": home, "TOY_PAGES": str(pages), "TOY_SECONDS": str(seconds)}
        command = [sys.executable, "-m", "dagster", "asset", "materialize", "--select", "toy"]
        command += ["-m", "mixpanel_assets_tests.benchmarks.toy_pages"]
        began = time.time()
        finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        whole = time.time() - began
    first_op = re.search(r"toy: first op at ([\d.]+)", finished.stdout)
    if first_op is None:
        raise SystemExit("The toy did not say when its first op began; see toy_pages.py.")
    return Measured(pages, seconds, whole, float(first_op[1]) - began)


def main() -> None:
    print("pages  s per page    whole s  s before 1st op  ideal s  ratio")
    for pair in sys.argv[1:] or DEFAULT_PAIRS:
        pages, seconds = pair.split(":")
        print(measure(int(pages), float(seconds)).row(), flush=True)


if __name__ == "__main__":
    main()
