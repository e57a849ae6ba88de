"""`mp demo`: the whole pipeline against the sandbox, in a home of its own, so that no real data is touched.

Belongs here: the stage and the words at the end. Does not belong here: the sync itself (fetch.py).
"""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mixpanel_assets import settings
from mixpanel_assets.cli.progress import View
from mixpanel_assets.process_setup import set_up_process
from mixpanel_assets.results import ParallelProfileFetchResult
from mixpanel_assets.sandbox import Limits, Population, Sandbox

# DuckDB 1.4 shows nothing of a connection that nobody holds.
_LOOK = 'import sys, duckdb; db = duckdb.connect(sys.argv[1]); db.sql("from mixpanel.profiles limit 5").show()'


@contextmanager
def stage(profiles: int, latency: float, seed: int) -> Iterator[Path]:
    """Point this process at a sandbox that runs meanwhile, and at `demo` in the Dagster home. Yields that folder."""
    home = settings.home() / "demo"
    with Sandbox(Population(profiles=profiles, seed=seed), latency=latency, limits=Limits(enforce=True)) as sandbox:
        os.environ.update(sandbox.environment)
        os.environ["DAGSTER_HOME"] = str(home)
        # A path set for real data must not lead the demo there.
        os.environ.pop("MP_DUCKDB_PATH", None)
        yield home


def run(view: View, workers: int) -> ParallelProfileFetchResult:
    """Sync the sandbox's profiles."""
    set_up_process()
    from mixpanel_assets.runs.syncs import profiles_config, sync_profiles

    # Another --profiles than last time is no sign of lost data here.
    synced = sync_profiles(profiles_config(max_removed_fraction=1.0), workers, view)
    return synced.result


def farewell(result: ParallelProfileFetchResult, home: Path) -> str:
    """What was stored, where it is, and how to look at it."""
    database = settings.duckdb_path()
    dagster = Path(sys.executable).with_name("dagster")
    return "\n".join(
        [
            "",
            f"Stored {result.total_rows:,} profiles from {result.successful_pages} pages in "
            f"{result.duration_seconds:.1f} s, table mixpanel.profiles in",
            f"  {database}",
            "Look at them:",
            f"  {_command([sys.executable, '-c', _LOOK, str(database)])}",
            "See the run in the Dagster UI (http://127.0.0.1:3000, Ctrl-C ends it):",
            f"  {_with_home(home, [str(dagster), 'dev', '-m', 'mixpanel_assets.definitions'])}",
        ]
    )


def _with_home(home: Path, command: list[str]) -> str:
    if os.name == "nt":
        return f"$env:DAGSTER_HOME='{home}'; & {_command(command)}"
    return f"DAGSTER_HOME={shlex.quote(str(home))} {_command(command)}"


def _command(words: list[str]) -> str:
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)
