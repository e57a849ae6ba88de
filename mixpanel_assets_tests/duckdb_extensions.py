"""DuckDB with the extensions that a DuckLake needs, which the package index has for DuckDB 1.5 alone.

They lie in a folder beside the other packages, and what runs with `environment` finds them before those: no test
process does, so that all other tests keep the DuckDB that is pinned.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from filelock import FileLock

_VERSION = "1.5.5"
_EXTENSIONS = ("aws", "ducklake", "httpfs", "postgres_scanner", "sqlite_scanner")
_FOLDER = Path(sys.prefix) / f"duckdb-{_VERSION}"
_PUT_IN_PLACE = """
import duckdb, os, pathlib, sys
[(platform,)] = duckdb.sql("pragma platform").fetchall()
folder = pathlib.Path(sys.argv[1]) / ".duckdb" / "extensions" / f"v{duckdb.__version__}" / platform
folder.mkdir(parents=True)
for name in sys.argv[2:]:
    file = pathlib.Path(sys.argv[1]) / f"duckdb_extension_{name}" / "extensions" / f"v{duckdb.__version__}"
    os.link(file / f"{name}.duckdb_extension", folder / f"{name}.duckdb_extension")
"""


def environment() -> dict[str, str]:
    """Of a process that has this DuckDB, which looks for its extensions in the user's folder, and finds them."""
    with FileLock(f"{_FOLDER}.lock"):
        if not _FOLDER.exists():
            _install()
    root = Path(__file__).parent.parent
    return {**os.environ, "PYTHONPATH": f"{_FOLDER}{os.pathsep}{root}", "HOME": str(_FOLDER)}


def _install() -> None:
    new = _FOLDER.with_suffix(".new")
    shutil.rmtree(new, ignore_errors=True)
    extensions = [f"duckdb-extension-{name.replace('_', '-')}=={_VERSION}" for name in _EXTENSIONS]
    uv = shutil.which("uv")
    install = [uv, "pip", "install", "--python", sys.executable] if uv else [sys.executable, "-m", "pip", "install"]
    subprocess.run([*install, "-q", "--target", str(new), f"duckdb=={_VERSION}", *extensions], check=True)
    python = [sys.executable, "-c", _PUT_IN_PLACE, str(new), *_EXTENSIONS]
    subprocess.run(python, check=True, env={**os.environ, "PYTHONPATH": str(new)})
    new.rename(_FOLDER)
