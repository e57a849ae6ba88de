"""Where DuckDB writes what exceeds its memory when the tables are in no file beside which it could: one per process."""

import tempfile
import threading
from functools import lru_cache

_guard = threading.Lock()


def spill_folder() -> str:
    """The folder, for its owner alone; it goes with the process. What a kill leaves is encrypted (lake_instance.py)."""
    with _guard:
        return _made().name


@lru_cache(maxsize=1)
def _made() -> "tempfile.TemporaryDirectory[str]":
    return tempfile.TemporaryDirectory(prefix="mixpanel-assets-", ignore_cleanup_errors=True)
