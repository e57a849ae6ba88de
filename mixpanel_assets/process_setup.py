"""What one call of `mp` sets for its process, which does a run of ours and ends. Imports change nothing: a notebook,
the web server or another code location that loads the definitions is left as it is.

Python's garbage collector is off while Dagster is imported, an eighth of that time, and passes over what the import
leaves: 130,000 objects that live until the process ends. A full collection looks at each of them, another 0.5 s when
the interpreter ends (the collections of a run are spared by executor/threaded.py wherever it runs). Not DuckDB's
objects: its bindings complain on stderr about each of theirs that is left at the end. So this comes before DuckDB is
imported, and modules that name DuckDB's types in annotations keep those as text. Dagster keeps the error of a step, and
with it every frame that it passed; if there is a connection among them, the collector gets its objects back at the end.

Dagster notes the days of a run as planned once, not day by day: that takes 10 ms each, 11 s for three years, before the
first request. Its price is that Dagster no longer knows which days a failed run left out: the report of the events says
it. If the run was killed nobody does, and its days show as they did before.
"""

import atexit
import gc
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alembic.config import Config


def set_up_process() -> None:
    """Call it once where a process of ours begins, before DuckDB is imported."""
    os.environ.setdefault("DAGSTER_EMIT_PARTITION_SUBSET_IN_PLANNED_EVENTS", "true")
    if "duckdb" in sys.modules:
        return
    gc.disable()
    # What the collector passes over; the storage too, which every command opens.
    import dagster._core.storage.sqlite_storage  # noqa: F401

    read_migrations_once()
    gc.freeze()
    gc.enable()
    atexit.register(_give_back_for_connections)


def read_migrations_once() -> None:
    """Let Alembic keep what it has read of Dagster's migrations.

    It reads them, some eighty modules, twice for each of an instance's databases that is opened, and a run has one of
    its own. Read once, an instance is open after 0.04 s of CPU instead of 0.2, and has a new run after 0.33 instead of
    0.51.
    """
    from alembic.script import ScriptDirectory

    read: dict[str | None, ScriptDirectory] = {}
    from_config = ScriptDirectory.from_config

    def kept(config: "Config") -> ScriptDirectory:
        location = config.get_main_option("script_location")
        if location not in read:
            read[location] = from_config(config)
        return read[location]

    ScriptDirectory.from_config = kept  # type: ignore[method-assign]


def _give_back_for_connections() -> None:
    connection = getattr(sys.modules.get("duckdb"), "DuckDBPyConnection", None)
    if any(type(found) is connection for found in gc.get_objects()):
        gc.unfreeze()
