"""Memory, measured: the process that fetches, against answers that are large or hostile.

`python -m mixpanel_assets_tests.benchmarks.memory [another source tree]` prints a Markdown table (on Linux): the peak
memory (RSS) of a process that fetches

- five pages of 137 MB at the same time, each of 40,000 profiles, and stages them;
- a page of 1.2 GB, a line of 0.6 GB, an export of 2 GB out of a megabyte or two of gzip.

With another source tree, such as a checkout of an older version, its figures stand beside ours. The largest file that
lay in the staging folder is printed too.
"""

import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import mixpanel_assets
from mixpanel_assets.sandbox import Fault, Limits, Population, Sandbox
from mixpanel_assets_tests.benchmarks.served import child_environment

PAGES, ROWS, TEXT = 5, 40_000, "a b c d e f g " * 237
# Runs with this version and with earlier ones.
FETCH = """
import logging, sys, threading
from pathlib import Path
from mixpanel_assets import settings
from mixpanel_assets.errors import MixpanelError
from mixpanel_assets.client.client import MixpanelClient
from mixpanel_assets.streams.profiles.wire import ProfileQuery
from mixpanel_assets.streams.events.wire import EventsQuery
from mixpanel_assets.client.retry import RetryPolicy
from mixpanel_assets.streams.snapshot.staged import SnapshotFolder
client, log = MixpanelClient(settings.project(), policy=RetryPolicy(max_attempts=1)), logging.getLogger()
root = Path(sys.argv[2])
root.mkdir(exist_ok=True)

def page(number):
    session = None if number == 0 else first.session_id
    came = fetch_page(client, ProfileQuery(), number, session, client.retrier(log))
    SnapshotFolder(root, PROFILES, "s").write_page(came, 1, ())
    return came

try:
    if sys.argv[1] == "pages":
        first = fetch_page(client, ProfileQuery(page_size=1), 0, None, client.retrier(log))
        at_once = [threading.Thread(target=page, args=(number,)) for number in range(1, 6)]
        [thread.start() for thread in at_once]
        [thread.join() for thread in at_once]
        print("stored", len(list(root.rglob("page-*.json"))), "pages")
    elif sys.argv[1] == "page":
        print("stored", page(0).served, "rows")
    else:
        with (root / "export").open("wb") as file:
            save_export(client, EventsQuery(), "2026-01-01", "2026-01-01", file)
        print("stored")
except MixpanelError as error:
    print(error)
# Of this program alone: what getrusage tells begins with the memory of the process that started it.
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
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


def measure(tree: Path, environment: dict[str, str], case: str) -> tuple[str, float, float, float]:
    """What the process said, its peak memory and its largest file in MB, and its seconds."""
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as said:
        command = [sys.executable, "-c", FETCH, case, str(Path(folder) / "staging")]
        variables = child_environment(environment, PYTHONPATH=str(tree), DAGSTER_HOME=folder)
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
    trees = {"this version": Path(mixpanel_assets.__file__).parent.parent}
    if len(sys.argv) > 1:
        trees = {"before": Path(sys.argv[1]).absolute(), **trees}
    print("| what | version | peak memory | largest file | time | what it said |")
    print("|---|---|---|---|---|---|")
    pages = [Fault("engage", "status:200", number, times=None, body=page(number)) for number in range(1, PAGES + 1)]
    with Sandbox(Population(profiles=3), page_size=1, limits=Limits(enforce=False)) as sandbox:
        for name, (case, fault) in CASES.items():
            for version, tree in trees.items():
                sandbox.faults = [fault] if fault else pages
                said, peak, largest, seconds = measure(tree, sandbox.environment, case)
                print(
                    f"| {name} | {version} | {peak:.0f} MB | {largest:.0f} MB | {seconds:.1f} s | {said} |", flush=True
                )


if __name__ == "__main__":
    main()
