"""Memory, measured: the process that fetches, against answers that are large or hostile.

`python -m mixpanel_assets_tests.benchmarks.memory` prints a Markdown table (on Linux): the peak memory (RSS) of a
process that fetches, and the largest file that lay in its folder. It fetches

- five pages of 137 MB at the same time, each of 40,000 profiles, and stages them;
- a page of 1.2 GB, a line of 0.6 GB, an export of 2 GB out of a megabyte or two of gzip.

What it fetches with is large_answers.py.
"""

import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import mixpanel_assets
from mixpanel_assets.sandbox import Fault, Limits, Population, Sandbox
from mixpanel_assets_tests.benchmarks import large_answers
from mixpanel_assets_tests.benchmarks.served import child_environment

_TREE = Path(mixpanel_assets.__file__).parent.parent
PAGES, ROWS, TEXT = 5, 40_000, "a b c d e f g " * 237
CASES = {
    "five pages of 137 MB in flight": ("pages", None),
    "1.2 GB page": ("page", Fault("engage", "huge-page:1200", times=None)),
    "0.6 GB line": ("export", Fault("export", "huge-line:600", times=None)),
    "2 GB of lines": ("export", Fault("export", "huge-export:2000", times=None)),
}


def page(number: int) -> str:
    """A page of 137 MB."""
    rows = (
        f'{{"$distinct_id":"profile-{number}-{row}","$properties":{{"$city":"\u00c5rhus","visits":{row},"text":"{TEXT}"}}}}'
        for row in range(ROWS)
    )
    return f'{{"page":{number},"page_size":{ROWS},"results":[{",".join(rows)}],"status":"ok"}}'


def measure(environment: dict[str, str], case: str) -> tuple[str, float, float, float]:
    """What the process said, its peak memory and its largest file in MB, and its seconds."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as said:
        command = [sys.executable, "-m", large_answers.__name__, case, str(Path(folder) / "staging")]
        variables = child_environment(environment, PYTHONPATH=str(_TREE), DAGSTER_HOME=folder)
        began = time.monotonic()
        child = subprocess.Popen(command, env=variables, cwd=folder, stdout=said, stderr=subprocess.STDOUT)
        largest = [0]
        over = threading.Event()

        def look() -> None:
            while not over.wait(0.1):
                sizes = [file.stat().st_size for file in Path(folder).rglob("*") if file.is_file()]
                largest.append(max(sizes, default=0))

        watching = threading.Thread(target=look)
        watching.start()
        child.wait()
        seconds = time.monotonic() - began
        over.set()
        watching.join()
        said.seek(0)
        text = said.read().decode()
    if child.returncode:
        raise SystemExit(text)
    *_, words, peak = text.strip().splitlines()
    return words, int(peak) / 1024, max(largest) / 1e6, seconds


def main() -> None:
    """Print the table."""
    print("| what | peak memory | largest file | time | what it said |")
    print("|---|---|---|---|---|")
    pages = [Fault("engage", "status:200", number, times=None, body=page(number)) for number in range(1, PAGES + 1)]
    with Sandbox(Population(profiles=3), page_size=1, limits=Limits(enforce=False)) as sandbox:
        for name, (case, fault) in CASES.items():
            sandbox.faults = [fault] if fault else pages
            said, peak, largest, seconds = measure(sandbox.environment, case)
            print(f"| {name} | {peak:.0f} MB | {largest:.0f} MB | {seconds:.1f} s | {said} |", flush=True)


if __name__ == "__main__":
    main()
