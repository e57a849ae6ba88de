"""A sandbox in a process of its own, so that a benchmark does not share its interpreter with the server."""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import mixpanel_assets
from mixpanel_assets.sandbox import Population, Sandbox


@contextmanager
def served(
    population: dict[str, Any], warm_days: tuple[str, str] | None = None, **options: Any
) -> Iterator[dict[str, str]]:
    """Environment variables of a running sandbox, plus `SANDBOX_URL`; bodies are made before it is handed over."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_serve, args=(theirs, population, warm_days, options), daemon=True
    )
    process.start()
    theirs.close()  # So that a sandbox that does not start is noticed, and not waited for.
    try:
        yield ours.recv()
    finally:
        process.terminate()
        process.join()


def journal(environment: dict[str, str]) -> list[dict[str, Any]]:
    """What the sandbox was asked, in order."""
    with urllib.request.urlopen(f"{environment['SANDBOX_URL']}/sandbox/journal") as response:
        answer: dict[str, Any] = json.load(response)
    requests: list[dict[str, Any]] = answer["requests"]
    return requests


def child_environment(environment: dict[str, str], **more: str) -> dict[str, str]:
    """Our environment with the sandbox's, for a command.

    Without the variable with which images of containers keep Python from writing bytecode: it would compile this
    project anew for each command, 0.3 s.
    """
    ours = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**ours, **environment, **more}


def prepare_home(home: str) -> None:
    """All as after a first run: a DAGSTER_HOME with our settings and empty databases, and the bytecode of our code."""
    shutil.copy(Path(mixpanel_assets.__file__).with_name("dagster.yaml"), home)
    for command in (["-m", "dagster", "instance", "info"], ["-c", "import mixpanel_assets.definitions"]):
        environment = child_environment({}, DAGSTER_HOME=home)
        subprocess.run([sys.executable, *command], env=environment, check=True, stdout=subprocess.DEVNULL)


def _serve(
    pipe: Connection, population: dict[str, Any], warm_days: tuple[str, str] | None, options: dict[str, Any]
) -> None:
    with Sandbox(Population(**population), **options) as sandbox:
        sandbox.warm(*(warm_days or ()), milliseconds=True)
        pipe.send({**sandbox.environment, "SANDBOX_URL": sandbox.url})
        multiprocessing.Event().wait()
