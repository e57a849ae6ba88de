"""`mp demo`: the whole pipeline against the sandbox, in a home of its own, so that no real data is touched.

Belongs here: the stage and the words at the end. Does not belong here: the syncs themselves (runs/), the UI
(demo_ui.py).
"""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mixpanel_assets import settings
from mixpanel_assets.cli.day_options import day_range
from mixpanel_assets.cli.progress import View
from mixpanel_assets.process_setup import set_up_process
from mixpanel_assets.results import ParallelFetchResult, ParallelProfileFetchResult
from mixpanel_assets.sandbox import Limits, Population, Sandbox

# DuckDB 1.4 shows nothing of a connection that nobody holds.
_LOOK = 'import sys, duckdb; db = duckdb.connect(sys.argv[1]); db.sql("from mixpanel.profiles limit 5").show()'


_EVENT_DAYS = 7
# Where real data are and what they are: the demo's lie elsewhere, and are others.
_OF_REAL_DATA = (
    "MP_DATABASE",
    "MP_DATA_PATH",
    "MP_DUCKDB_PATH",
    "MP_READ_COPY",
    "MP_STAGING_URL",
    "MP_WORKSPACE_ID",
    "MP_EVENTS_START_DATE",
    "MP_EVENT_TIMES",
)


@contextmanager
def stage(profiles: int, latency: float, seed: int) -> Iterator[Path]:
    """Point this process at a sandbox that runs meanwhile, and at `demo` in the Dagster home. Yields that folder."""
    home = settings.home() / "demo"
    with Sandbox(Population(profiles=profiles, seed=seed), latency=latency, limits=Limits(enforce=True)) as sandbox:
        os.environ.update(sandbox.environment)
        os.environ["DAGSTER_HOME"] = str(home)
        # A path set for real data must not lead the demo there, nor days or times of a real project.
        for name in _OF_REAL_DATA:
            os.environ.pop(name, None)
        yield home


def run(profiles_view: View, workers: int) -> ParallelProfileFetchResult:
    """Sync the sandbox's profiles."""
    set_up_process()
    from mixpanel_assets.runs.syncs import checked_config, stream_named, sync

    # Another --profiles than last time is no sign of lost data here.
    profiles = stream_named("profiles")
    result = sync(profiles, checked_config(profiles, {"max_removed_fraction": 1.0}), workers, profiles_view).result
    assert isinstance(result, ParallelProfileFetchResult)
    return result


def run_events(events_view: View) -> ParallelFetchResult:
    """Sync the sandbox's events of the last days."""
    from mixpanel_assets.runs.syncs import checked_config, stream_named, sync, workers_for

    # A demo of another seed has other events.
    events = stream_named("events")
    config = checked_config(events, {"chunk_days": 1, "max_removed_fraction": 1.0})
    days = day_range(None, None, f"{_EVENT_DAYS}d")
    result = sync(events, config, workers_for(events, None), events_view, days=days).result
    assert isinstance(result, ParallelFetchResult)
    return result


def stored_lines(profiles: ParallelProfileFetchResult, events: ParallelFetchResult) -> str:
    """What was stored, where it is, and how to look at it."""
    database = settings.database()
    return "\n".join(
        [
            "",
            f"Stored {profiles.total_rows:,} profiles from {profiles.successful_pages} pages in "
            f"{profiles.duration_seconds:.1f} s, and {events.total_rows:,} events of {_EVENT_DAYS} days in "
            f"{events.duration_seconds:.1f} s, tables mixpanel.profiles and mixpanel.events in",
            f"  {database}",
            "Look at them:",
            f"  {_command([sys.executable, '-c', _LOOK, str(database)])}",
        ]
    )


def ui_lines(home: Path) -> str:
    """How to open the UI on the run, with the stand-in at work, since without it Materialize could only fail."""
    command = [sys.executable, "-m", "mixpanel_assets", "demo", "--ui"]
    return "\n".join(
        [
            "See the run in the Dagster UI, and press Materialize there (Ctrl-C ends it):",
            f"  {_with_home(home.parent, command)}",
        ]
    )


def _with_home(home: Path, command: list[str]) -> str:
    if os.name == "nt":
        return f"$env:DAGSTER_HOME='{home}'; & {_command(command)}"
    return f"DAGSTER_HOME={shlex.quote(str(home))} {_command(command)}"


def _command(words: list[str]) -> str:
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)
