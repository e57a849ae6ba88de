"""What an hourly sync of changed profiles costs: `python -m mixpanel_assets_tests.benchmarks.incremental [PROFILES]`.

A million profiles, of which one in a hundred was updated since the complete sync: requests, rows, seconds and CPU
seconds of both, the whole of a call of `fetch_profiles`, as a Markdown table; the sandbox is a process of its own.
"""

import datetime
import json
import multiprocessing
import os
import sys
import tempfile
import time
from multiprocessing.connection import Connection

from mixpanel_assets.sandbox import Limits, Population, Sandbox

EVERY = 100


def serve(profiles: int, pipe: Connection) -> None:
    """A sandbox, until told otherwise: after the first word one in a hundred profiles is seen now; to each its requests
    are told, and the rows that it served."""
    population = Population(profiles=profiles, events_per_day=0)
    with Sandbox(population, limits=Limits(enforce=False)) as sandbox:
        pipe.send(sandbox.environment)
        for seen in (True, False):
            pipe.recv()
            requests = sandbox.journal.requests
            pipe.send((len(requests), sum(request.rows for request in requests)))
            sandbox.clear()
            if seen:
                moment = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S")
                population.replace_every(EVERY, json.dumps({"$last_seen": moment, "again": True}))
                pipe.send(None)


def main() -> None:
    """Print the table."""
    profiles = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(target=serve, args=(profiles, theirs), daemon=True)
    server.start()
    print("| sync | requests | rows | seconds | CPU seconds |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as home:
        os.environ.update({**ours.recv(), "DAGSTER_HOME": home, "MP_HOURLY_QUERIES": "100000"})
        from mixpanel_assets import fetch_profiles

        for name in ("complete", "incremental"):
            began, used = time.monotonic(), time.process_time()
            fetch_profiles(parallel=True, incremental=True)
            seconds, cpu = time.monotonic() - began, time.process_time() - used
            ours.send(None)
            requests, rows = ours.recv()
            print(f"| {name} | {requests:,} | {rows:,} | {seconds:.0f} s | {cpu:.1f} s |", flush=True)
            if name == "complete":
                ours.recv()
    server.terminate()


if __name__ == "__main__":
    main()
