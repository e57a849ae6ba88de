"""The secret is in the environment and on the wire, and nowhere else."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from mixpanel_assets.sandbox import Fault, Population, Sandbox

pytestmark = pytest.mark.process

SECRET = "mark/er+secret 7"


def forms(username: str) -> list[bytes]:
    """As people, headers and URLs write it."""
    pair = f"{username}:{SECRET}"
    encoded = [base64.b64encode(text.encode()).decode().rstrip("=") for text in (SECRET, pair)]
    return [text.encode() for text in (SECRET, quote(SECRET), quote(SECRET, safe=""), *encoded)]


def files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())


ERRORS = ("status:401", "status:403", "status:400", "json-error-200", "not-json", "error-line")
DAYS = [f"2026-01-0{number}" for number in range(1, len(ERRORS) + 2)]
SYNCS = {
    "mixpanel/profiles": ([], {}),
    "mixpanel/events": (["--partition-range", f"{DAYS[0]}...{DAYS[-1]}"], {"mixpanel__events": {"chunk_days": 1}}),
}


@pytest.mark.parametrize("asset", SYNCS)
def test_is_written_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asset: str) -> None:
    """A sync that logs, stages, stores and fails, and a server that quotes the credentials in every error.

    Red without redact in http.py, and in event_lines.py: of errors, and of lines that are set aside.
    """
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with Sandbox(Population(60, events_per_day=10), page_size=10, secret=SECRET) as sandbox:
        pair = base64.b64encode(f"{sandbox.username}:{SECRET}".encode()).decode()
        quoting = f'{{"error":"not with {SECRET}, nor Basic {pair}"}}'
        aside = f'{{"event":"","properties":{quoting}}}'
        sandbox.faults = [
            *(Fault("engage", do, page, times=None, body=quoting) for page, do in enumerate(ERRORS[:-1], 1)),
            *(
                Fault("export", do, from_date=day, times=None, body=quoting)
                for day, do in zip(DAYS, ERRORS, strict=False)
            ),
            Fault("export", "error-line", from_date=DAYS[-1], times=None, body=aside),
        ]
        for name, value in {**sandbox.environment, "DAGSTER_HOME": str(tmp_path)}.items():
            monkeypatch.setenv(name, value)
        chosen, settings = SYNCS[asset]
        command = [sys.executable, "-m", "dagster", "asset", "materialize", "--select", asset, *chosen]
        config = {
            "resources": {"mixpanel": {"config": {"retry_base_seconds": 0.01}}},
            "ops": {op: {"config": given} for op, given in settings.items()},
        }
        command += ["-m", "mixpanel_assets.definitions", "--config-json", json.dumps(config)]
        done = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONFAULTHANDLER": "1"}, check=False)
    assert done.returncode == 1
    written = {path: path.read_bytes() for path in files(tmp_path)}
    places = {path.relative_to(tmp_path).parts[0] for path in written}
    assert {"history", "staging", "mixpanel_data.duckdb"} <= places
    written[Path("output")] = done.stdout + done.stderr
    assert b"refused the credentials" in written[Path("output")]
    found = [str(path) for path, content in written.items() for form in forms(sandbox.username) if form in content]
    assert found == []
