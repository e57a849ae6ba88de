"""README is true: every command block runs, in a copy of the repository, against the sandbox.

A comment above a block says how: `demo` and `test` are run by .ci/run, in a clone with nothing installed; `serve`
starts and must answer; `sql` is put to the file that the blocks before it made; `recipe` is a part of the project that
test_sample_project.py runs, `host` one that test_postgres_storage.py runs; `benchmark` takes minutes (pytest -m slow).
"""

import http.server
import json
import os
import re
import shutil
import socketserver
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import duckdb
import pytest

from mixpanel_assets.alerts import FailedRun
from mixpanel_assets.sandbox import Population, Sandbox
from mixpanel_assets.streams.all import STREAMS
from mixpanel_assets_tests.dagster_dev import in_session

pytestmark = pytest.mark.process

ROOT = Path(__file__).parent.parent
BLOCK = re.compile(r"(?:<!-- (?P<kind>\w+) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)```", re.DOTALL)
SAMPLE = ROOT / "mixpanel_assets_tests" / "sample_project"
SERVE_SECONDS = 90


@dataclass(frozen=True)
class Block:
    kind: str
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind or self.language}: {self.text.strip().splitlines()[-1][:40]}"


BLOCKS = [
    Block(match["kind"] or "", match["language"], match["text"])
    for match in BLOCK.finditer((ROOT / "README.md").read_text())
]


def blocks(language: str, kind: str = "") -> list[Block]:
    return [block for block in BLOCKS if (block.language, block.kind) == (language, kind)]


class Mailbox(socketserver.StreamRequestHandler):
    """A mail server that takes one message."""

    def handle(self) -> None:
        server = cast("Any", self.server)
        self.wfile.write(b"220 here\r\n")
        for line in self.rfile:
            if line.upper().startswith(b"DATA"):
                self.wfile.write(b"354 go on\r\n")
                server.mail = b"".join(iter(self.rfile.readline, b".\r\n")).decode()
            self.wfile.write(b"221 bye\r\n" if line.upper().startswith(b"QUIT") else b"250 ok\r\n")


class Webhook(http.server.BaseHTTPRequestHandler):
    """A chat that takes one message."""

    def do_POST(self) -> None:
        cast("Any", self.server).posted = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def served(server: socketserver.BaseServer) -> Iterator[Any]:
    with server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@dataclass(frozen=True)
class Clone:
    """A copy of what git tracks, and the environment of somebody who works in it."""

    path: Path
    environment: dict[str, str]

    def run(self, script: str, seconds: float = 300) -> subprocess.CompletedProcess[str]:
        command = ["sh", "-e", "-c", script]
        return subprocess.run(
            command, cwd=self.path, env=self.environment, capture_output=True, text=True, timeout=seconds
        )


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    path = tmp_path_factory.mktemp("clone")
    tracked = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    for name in tracked:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, path / name)
    with Sandbox(
        Population(2500, events_per_day=50, first_day="2025-12-01", last_day="2026-02-28", group_profiles=20)
    ) as sandbox:
        binaries = Path(sys.executable).parent
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("MP_", "DAGSTER_"))}
        ours["PATH"] = f"{binaries}{os.pathsep}{ours['PATH']}"
        yield Clone(path, {**ours, **sandbox.environment})


def without_placeholders(script: str) -> str:
    """The block without its `export MP_...` line: the sandbox's values are in the environment already."""
    return "\n".join(line for line in script.splitlines() if not line.startswith("export MP_"))


def test_every_block_is_of_a_kind_that_is_run() -> None:
    known = {("sh", kind) for kind in ("", "demo", "test", "serve", "host", "benchmark")} | {
        ("python", ""),
        ("sql", "sql"),
    }
    others = {(block.language, block.kind) for block in BLOCKS} - known
    assert others <= {("text", ""), ("yaml", ""), *((language, "recipe") for language in ("python", "yaml", "sql"))}


def test_recipes_are_parts_of_the_sample_project() -> None:
    parts = [file.read_text() for file in SAMPLE.rglob("*") if file.suffix in (".py", ".yml", ".sql")]
    recipes = [block.text for block in BLOCKS if block.kind == "recipe"]
    assert len(recipes) == 3
    for recipe in recipes:
        assert any(recipe in part for part in parts), recipe


def test_every_setting_of_a_stream_is_told() -> None:
    """Red when a stream gets a setting that README's tables do not have."""
    tables = (ROOT / "README.md").read_text().partition("Per sync, in the launchpad")[2].partition("The pools hold")[0]
    settings = {name for stream in STREAMS for name in stream.config.model_fields}
    # It only says where groups went.
    assert [name for name in sorted(settings - {"data_group_id"}) if f"`{name}`" not in tables] == []


def test_ci_runs_the_two_commands() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert "for kind in demo test; do" in script
    for kind in ("demo", "test"):
        [block] = blocks("sh", kind)
        assert len(block.text.strip().splitlines()) == 1


@pytest.mark.skipif(os.name == "nt", reason="README's blocks are for a POSIX shell")
def test_blocks_in_order(clone: Clone) -> None:
    """One test, in README's order: the first syncs make the file that the later blocks read."""
    for block in BLOCKS:
        if block.kind == "recipe":
            continue
        if block.language == "python":
            (clone.path / "block.py").write_text(block.text)
            succeeds(clone, block, f"{sys.executable} block.py")
        elif block.language == "sql":
            finds_rows(clone, block)
        elif (block.language, block.kind) == ("sh", ""):
            succeeds(clone, block, without_placeholders(block.text))


@pytest.mark.skipif(os.name == "nt", reason="README's blocks are for a POSIX shell")
@pytest.mark.parametrize("block", blocks("sh", "serve"), ids=str)
def test_servers(clone: Clone, block: Block, free_port: int) -> None:
    command = ["sh", "-c", f"exec env {block.text.strip()} -p {free_port}"]
    with in_session(command, cwd=clone.path, env=clone.environment, stderr=-3, stdout=-3):
        assert answers(f"http://127.0.0.1:{free_port}/server_info")


def test_both_ways_to_tell_of_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    [block] = [block for block in BLOCKS if "on_failure=" in block.text]
    recipe: dict[str, Any] = {}
    exec(block.text, recipe)
    failed = FailedRun("7f3a", "sync_profiles", ("mixpanel/profiles",), "page 3 is missing: fetch it again")
    with (
        served(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Webhook)) as chat,
        served(socketserver.TCPServer(("127.0.0.1", 0), Mailbox)) as post_office,
    ):
        monkeypatch.setenv("CHAT_WEBHOOK", f"http://127.0.0.1:{chat.server_port}/hook")
        monkeypatch.setenv("SMTP_HOST", f"127.0.0.1:{post_office.server_address[1]}")
        recipe["post"](failed)
        recipe["mail"](failed)
    assert chat.posted == {"text": "mixpanel/profiles: page 3 is missing: fetch it again"}
    assert "Subject: Failed: mixpanel/profiles" in post_office.mail
    assert "page 3 is missing: fetch it again\r\n\r\nRun 7f3a" in post_office.mail


@pytest.mark.slow
@pytest.mark.parametrize("block", blocks("sh", "benchmark"), ids=str)
def test_benchmarks(clone: Clone, block: Block) -> None:
    if not (clone.path / ".git").exists():  # One of them begins with a clone of its own.
        clone.run("git init -q && git add -A && git -c user.name=n -c user.email=e commit -qm all")
    done = clone.run(block.text, seconds=1800)
    assert done.returncode == 0, done.stderr[-2000:]


def succeeds(clone: Clone, block: Block, script: str) -> None:
    done = clone.run(script)
    assert done.returncode == 0, f"{block}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"


def finds_rows(clone: Clone, block: Block) -> None:
    with duckdb.connect(str(clone.path / "dagster_home" / "mixpanel_data.duckdb")) as connection:
        for query in filter(str.strip, block.text.split(";")):
            assert connection.execute(query).fetchall(), f"{block}: no rows"


def answers(url: str) -> bool:
    deadline = time.monotonic() + SERVE_SECONDS
    while time.monotonic() < deadline:
        with suppress(OSError), urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
        time.sleep(0.3)
    return False
