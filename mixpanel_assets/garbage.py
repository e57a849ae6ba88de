"""What Python's garbage collector passes over, in a process that does nothing but our runs. Imported for its effect.

Dagster's import leaves 130,000 objects that live until the process ends. A full collection looks at each of them: some
0.3 s of a run, in which no step can go on, and another 0.5 s when the interpreter ends. So they are set aside, once.

Not where a program of somebody's own (a notebook, another code location) may have objects among them. And not DuckDB's:
its bindings complain on stderr about each of theirs that is left at the end. So this comes before DuckDB is imported,
and modules that name DuckDB's types in annotations keep those as text.
"""

import gc
import sys
from pathlib import Path

import dagster  # noqa: F401 - what is set aside

_OURS = "mixpanel_assets.definitions"


def _does_only_our_runs() -> bool:
    """Whether this process is `mp`, or a command of Dagster that was told to load our definitions."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    program = Path(sys.argv[0]).stem if module is None else module.name.removesuffix(".__main__")
    of_dagster = program == "dagster" and any(_OURS in argument for argument in sys.argv[1:])
    return of_dagster or program in ("mp", "mixpanel_assets")


if _does_only_our_runs() and "duckdb" not in sys.modules:
    gc.freeze()
