"""The first minutes of somebody who has nothing yet, measured: from a fresh clone to the answer of a first query.

`python -m mixpanel_assets_tests.benchmarks.first_minutes` clones what is committed here into a temporary folder, runs
README's demo there, and then the query that the demo prints, as a person would copy it. It installs from the package
index that pip is set up for. Prints a Markdown table; the figures are of one run.
"""

import os
import re
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
_DEMO = re.compile(r"<!-- demo -->\n```sh\n(.*)\n```")
# What tells in the output of the demo that a step is done, and what the step is.
_STEPS = (("profiles: 1 of", "installed, the first rows came"), ("Stored ", "two tables are stored"))


def measure(folder: Path) -> list[tuple[str, int, float]]:
    """What is reached, after how many commands of whose lines each is typed or copied, and seconds since the first."""
    began, reached = time.monotonic(), []
    _run(["git", "clone", "-q", str(ROOT), "."], folder)
    [demo] = _DEMO.findall((folder / "README.md").read_text())
    # git clone, cd, the demo.
    commands, query = 3, ""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MP_", "DAGSTER_"))}
    with subprocess.Popen(
        demo, shell=True, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        lines = iter(process.stdout)
        for line in lines:
            reached += [
                (step, commands, time.monotonic() - began) for begins, step in _STEPS if line.startswith(begins)
            ]
            if line.startswith("Look at them"):
                query = next(lines).strip()
    if process.returncode or not query:
        raise SystemExit(f"the demo ended with {process.returncode}")
    _run(["sh", "-c", query], folder)
    return [*reached, ("the first query is answered", commands + 1, time.monotonic() - began)]


def _run(command: list[str], folder: Path) -> None:
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder))
    print("| since `git clone` | commands | seconds |")
    print("|---|---|---|")
    for step, commands, seconds in rows:
        print(f"| {step} | {commands} | {seconds:.0f} |")


if __name__ == "__main__":
    main()
