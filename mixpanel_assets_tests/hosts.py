"""Hosts that share a Postgres: each with a DAGSTER_HOME and working folder of its own."""

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest

from mixpanel_assets_tests.postgres import Database

ROOT = Path(__file__).parent.parent
SETTINGS = ROOT / "dagster_home" / "dagster-postgres.yaml"


@dataclass(frozen=True)
class Host:
    """One host."""

    folder: Path
    database: Database

    @classmethod
    def make(cls, folder: Path, database: Database) -> "Host":
        """A new one."""
        folder.mkdir()
        shutil.copy(SETTINGS, folder / "dagster.yaml")
        return cls(folder, database)

    @property
    def environment(self) -> dict[str, str]:
        """What its processes see."""
        own = {"DAGSTER_HOME": str(self.folder), "PYTHONPATH": str(ROOT)}
        return {**os.environ, **self.database.environment, **own}

    def start(self, command: Sequence[str], more: Mapping[str, str] | None = None) -> "subprocess.Popen[bytes]":
        """Start a process of it."""
        with (self.folder / "output").open("ab") as output:
            return subprocess.Popen(
                command, cwd=self.folder, env={**self.environment, **(more or {})}, stdout=output, stderr=output
            )

    @contextmanager
    def instance(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
        """Its instance, in this process."""
        for name, value in self.database.environment.items():
            monkeypatch.setenv(name, value)
        with dg.DagsterInstance.from_config(str(self.folder)) as instance:
            yield instance
