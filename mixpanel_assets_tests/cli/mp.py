"""`mp` in the process of a test, and what it printed."""

import json
from typing import Any

import pytest

from mixpanel_assets.cli.main import run

SECRET = "sandbox-secret-4711"


class Mp:
    """Runs `mp` in this process and keeps what it printed."""

    def __init__(self, capfd: pytest.CaptureFixture[str]) -> None:
        self._capfd = capfd
        self.out = self.err = ""

    def __call__(self, *arguments: str) -> int:
        self._capfd.readouterr()
        code = run(list(arguments))
        self.out, self.err = self._capfd.readouterr()
        return code

    @property
    def result(self) -> dict[str, Any]:
        """stdout, which is JSON and nothing else."""
        result: dict[str, Any] = json.loads(self.out)
        return result
