"""What a process sets for itself that does nothing but our runs: `mp`, or a command of Dagster told to load our
definitions. Imported for its effect; elsewhere (a notebook, the web server, another code location) it has none.

Python's garbage collector passes over what Dagster's import leaves: 130,000 objects that live until the process ends. A
full collection looks at each of them: some 0.3 s of a run, in which no step can go on, and another 0.5 s when the
interpreter ends. Not DuckDB's objects: its bindings complain on stderr about each of theirs that is left at the end. So
this comes before DuckDB is imported, and modules that name DuckDB's types in annotations keep those as text. Dagster
keeps the error of a step, and with it every frame that it passed; if there is a connection among them, the collector
gets its objects back at the end.

Dagster notes the days of a run as planned once, not day by day: that takes 10 ms each, 11 s for three years, before the
first request. Its price is that Dagster no longer knows which days a failed run left out: assets/events.py says it. If
the run was killed nobody does, and its days show as they did before.
"""

import atexit
import gc
import os
import sys
from pathlib import Path

import dagster  # noqa: F401 - what the collector passes over

_OURS = "mixpanel_assets.definitions"


def _does_only_our_runs() -> bool:
    module = getattr(sys.modules["__main__"], "__spec__", None)
    program = Path(sys.argv[0]).stem if module is None else module.name.removesuffix(".__main__")
    of_dagster = program == "dagster" and any(_OURS in argument for argument in sys.argv[1:])
    return of_dagster or program in ("mp", "mixpanel_assets")


def _give_back_for_connections() -> None:
    connection = getattr(sys.modules.get("duckdb"), "DuckDBPyConnection", None)
    if any(type(found) is connection for found in gc.get_objects()):
        gc.unfreeze()


if _does_only_our_runs():
    os.environ.setdefault("DAGSTER_EMIT_PARTITION_SUBSET_IN_PLANNED_EVENTS", "true")
    if "duckdb" not in sys.modules:
        gc.freeze()
        atexit.register(_give_back_for_connections)
