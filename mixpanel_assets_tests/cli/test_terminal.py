"""`mp` in a real terminal (tmux), as a person sees it: the bar, a failed page, Ctrl-C, wrong credentials.

Belongs here: what can only be seen on a terminal. What scripts see is test_commands.py's.
"""

import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import duckdb
import pytest

from mixpanel_assets.sandbox import Fault, Population, Sandbox

pytestmark = [pytest.mark.process, pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")]

# A generous end for what takes three or four seconds on a quiet machine.
PATIENCE_SECONDS = 60.0


@dataclass
class Terminal:
    """A terminal of 100 columns and 30 lines, with a shell of its own."""

    socket: str
    folder: Path

    def tmux(self, *arguments: str) -> str:
        return subprocess.run(
            ["tmux", "-L", self.socket, *arguments], capture_output=True, text=True, check=True
        ).stdout

    def start(self, command: str, environment: dict[str, str]) -> None:
        """Type a command; `ended with <code>` follows when it has ended."""
        variables = [word for name, value in environment.items() for word in ("-e", f"{name}={value}")]
        size = ("-x", "100", "-y", "30")
        shell = f"{command}; echo ended with $?; exec sh"
        self.tmux("-f", "/dev/null", "new-session", "-d", "-s", "mp", *size, *variables, "-c", str(self.folder), shell)

    def screen(self) -> str:
        return self.tmux("capture-pane", "-p", "-S", "-200", "-t", "mp")

    def wait_for(self, *words: str) -> str:
        """The screen, once one of the words is on it."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not any(word in (screen := self.screen()) for word in words):
            assert time.monotonic() < deadline, f"no {words} on:\n{screen}"
            time.sleep(0.05)
        return screen

    def press(self, key: str) -> None:
        self.tmux("send-keys", "-t", "mp", key)


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal(f"mp-{tmp_path.name}-{time.monotonic_ns()}", tmp_path)
    yield terminal
    subprocess.run(["tmux", "-L", terminal.socket, "kill-server"], capture_output=True, check=False)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(Population(profiles=300, seed=5), page_size=10, latency=0.3) as sandbox:
        yield sandbox


def mp(arguments: str) -> str:
    return f"{shlex.quote(sys.executable)} -m mixpanel_assets {arguments}"


def environment(sandbox: Sandbox, folder: Path) -> dict[str, str]:
    return {**sandbox.environment, "DAGSTER_HOME": str(folder / "home"), "TERM": "xterm-256color", "LANG": "C.UTF-8"}


def stored(folder: Path) -> int:
    with duckdb.connect(str(folder / "home" / "mixpanel_data.duckdb")) as connection:
        [(rows,)] = connection.execute("select count(*) from mixpanel.profiles").fetchall()
        return int(rows)


def test_a_bar_grows_and_the_result_follows(terminal: Terminal, sandbox: Sandbox, tmp_path: Path) -> None:
    """Red when the run captures the output (no bar), and when a plan without pages empties the bar."""
    terminal.start(mp("fetch profiles -p"), environment(sandbox, tmp_path))
    half = terminal.wait_for("11/30", "16/30", "21/30")
    assert "━" in half
    assert "rows" in half
    screen = terminal.wait_for("ended with 0")
    assert '"total_rows": 300' in screen
    assert "30/30" in screen
    assert "dagster" not in screen.lower().replace("dagster_home", ""), "Dagster's own lines stay away"
    assert stored(tmp_path) == 300


def test_a_failed_page_is_told_above_the_bar_and_again_at_the_end(
    terminal: Terminal, sandbox: Sandbox, tmp_path: Path
) -> None:
    """Red without `say` for log lines, and without the warning after the result."""
    sandbox.faults.append(Fault("engage", "status:403", page=7, times=1))
    terminal.start(mp("fetch profiles -p"), environment(sandbox, tmp_path))
    screen = terminal.wait_for("ended with 1")
    assert "failed: page 7: Mixpanel answered 403" in screen
    assert "30/30" in screen
    assert "Warning: 1 of 30 pages failed: 7. Fetch them with: mp retry profiles" in screen
    assert stored(tmp_path) == 290


def test_ctrl_c_ends_cleanly_with_the_table_as_it_was(terminal: Terminal, sandbox: Sandbox, tmp_path: Path) -> None:
    """Red when the run captures the output (its helpers answer with tracebacks), and without the look at its status."""
    terminal.start(mp("fetch profiles -p"), environment(sandbox, tmp_path))
    terminal.wait_for("11/30", "16/30")
    terminal.press("C-c")
    screen = terminal.wait_for("ended with 130")
    assert "Traceback" not in screen
    assert "Stopped: " in screen
    assert "the table is as it was" in screen
    assert len(sandbox.journal.requests) < 30


def test_a_second_ctrl_c_ends_it_at_once(terminal: Terminal, sandbox: Sandbox, tmp_path: Path) -> None:
    """Red without the line about Ctrl-C, and when the second signal is not looked at: the pages would be waited for."""
    sandbox.faults.append(Fault("engage", "delay", page=25, times=None, seconds=9.0))
    sandbox.faults.append(Fault("engage", "delay", page=26, times=None, seconds=9.0))
    terminal.start(mp("fetch profiles -p"), environment(sandbox, tmp_path))
    terminal.wait_for("28/30")
    terminal.press("C-c")
    terminal.wait_for("Ctrl-C again ends it at once")
    terminal.press("C-c")
    screen = terminal.wait_for("ended with 130")
    assert "Traceback" not in screen
    assert not [request for request in sandbox.journal.requests if request.page in (25, 26)], "nobody waited for them"


def test_wrong_credentials_are_one_line_and_no_secret(terminal: Terminal, sandbox: Sandbox, tmp_path: Path) -> None:
    """Red when the error's kind is lost: exit code 1."""
    terminal.start(
        mp("fetch profiles -p"), {**environment(sandbox, tmp_path), "MP_SECRET": "hunter2-is-not-the-secret"}
    )
    screen = terminal.wait_for("ended with 2")
    assert "Error: page 0: Mixpanel refused the credentials (401): check MP_USERNAME" in screen
    assert "hunter2" not in screen
    assert "Traceback" not in screen


def test_no_color_leaves_the_bar_without_colours(terminal: Terminal, sandbox: Sandbox, tmp_path: Path) -> None:
    """Red when the console is told to use colours whatever NO_COLOR says."""
    sandbox.latency = 0.0
    terminal.start(mp("fetch profiles -p"), {**environment(sandbox, tmp_path), "NO_COLOR": "1"})
    terminal.wait_for("ended with 0")
    coloured = terminal.tmux("capture-pane", "-p", "-e", "-S", "-200", "-t", "mp")
    assert "30/30" in coloured
    assert "\x1b[3" not in coloured
