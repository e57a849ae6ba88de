"""`dagster dev` as people start it, on a free port and a home of its own, and gone without a trace afterwards."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests

REPOSITORY = Path(__file__).resolve().parent.parent
_START_SECONDS = 90
_STOP_SECONDS = 15


@contextmanager
def dagster_dev(home: Path, module: str, environment: Mapping[str, str]) -> Iterator[str]:
    """Yields its URL once the code location is loaded. `home` gets the repository's dagster.yaml."""
    shutil.copy(REPOSITORY / "dagster_home" / "dagster.yaml", home)
    (home / "workspace.yaml").write_text(
        f"load_from:\n  - python_module: {{module_name: {module}, location_name: mixpanel_assets}}\n"
    )
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    dagster = Path(sys.executable).with_name("dagster")
    command = [str(dagster), "dev", "-w", str(home / "workspace.yaml"), "-p", str(port)]
    url = f"http://127.0.0.1:{port}"
    started = {"cwd": REPOSITORY, "env": {**os.environ, **environment, "DAGSTER_HOME": str(home)}}
    with (
        (home / "dagster-dev.log").open("wb") as log,
        in_session(command, **started, stdout=log, stderr=log) as process,
    ):
        _wait_until_loaded(url, process, home)
        yield url


@contextmanager
def in_session(command: Sequence[str], **options: Any) -> Iterator["subprocess.Popen[bytes]"]:
    """A process in a session of its own. At the end Ctrl-C, and an end to whatever is left of the session then: web
    server, daemon, code servers, runs."""
    process = subprocess.Popen(command, start_new_session=True, **options)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(_STOP_SECONDS)
        if process.stdout is not None:
            process.stdout.close()


def _wait_until_loaded(url: str, process: "subprocess.Popen[bytes]", home: Path) -> None:
    query = "{ repositoriesOrError { ... on RepositoryConnection { nodes { name } } } }"
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(requests.RequestException):
            answer = requests.post(f"{url}/graphql", json={"query": query}, timeout=30).json()
            if answer["data"]["repositoriesOrError"].get("nodes"):
                return
        time.sleep(0.5)
    log = (home / "dagster-dev.log").read_text(errors="replace")
    raise AssertionError(f"dagster dev did not start within {_START_SECONDS} s:\n{log[-3000:]}")
