"""`mp demo --ui`: the Dagster UI on the demo's runs, beside a stand-in Mixpanel that lives as long.

Belongs here: the process of the UI, from its start until Ctrl-C. Does not belong here: what it shows.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType

from mixpanel_assets.cli.output import show
from mixpanel_assets.errors import MixpanelAssetsError

_HOST = "127.0.0.1"
_USUAL_PORT = 3000
_STOP_SECONDS = 20.0
# `dagster dev` works, and advises its successor, which needs a project of its own layout.
_NO_ADVICE = "ignore:Function `dev_command` is superseded"
_SHOWN = ("DAGSTER_HOME", "MP_USERNAME", "MP_SECRET", "MP_PROJECT_ID", "MP_QUERY_URL", "MP_EXPORT_URL", "MP_APP_URL")


def serve_ui(home: Path) -> None:
    """Run `dagster dev` with this process's environment until Ctrl-C or SIGTERM; says where it is once it answers.

    It runs in `home`: from a file .env where the person is, Dagster would take the variables of a real project.

    Raises:
        MixpanelAssetsError: it ends by itself.
    """
    port = _free_port()
    dagster = str(Path(sys.executable).with_name("dagster"))
    # Its own lines would push the link out of sight; warnings and errors still show.
    quiet = ("--log-level", "warning", "--code-server-log-level", "warning")
    command = [dagster, "dev", "-m", "mixpanel_assets.definitions", "-h", _HOST, "-p", str(port), *quiet]
    process = subprocess.Popen(command, cwd=home, env={**os.environ, "PYTHONWARNINGS": _NO_ADVICE})

    def end(number: int, frame: FrameType | None) -> None:
        process.send_signal(signal.SIGINT)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, end)
    try:
        _wait_until_it_answers(process, port)
        show(_words(f"http://{_HOST}:{port}/assets/mixpanel/profiles", os.environ))
        raise _ended(process.wait())
    except KeyboardInterrupt:
        pass  # The terminal has sent it to the UI too.
    finally:
        signal.signal(signal.SIGTERM, before)
        _end(process)


def export_line(name: str, value: str) -> str:
    """The line that sets a variable in a shell of this machine."""
    return f"$env:{name} = '{value}'" if os.name == "nt" else f"export {name}='{value}'"


def _words(link: str, environment: Mapping[str, str]) -> str:
    variables = (f"  {export_line(name, environment[name])}" for name in _SHOWN)
    return "\n".join(
        [
            "The Dagster UI, where Materialize works until you end this with Ctrl-C:",
            f"  {link}",
            "Other commands find the demo, and not your own project, in a terminal with:",
            *variables,
        ]
    )


def _free_port() -> int:
    """The usual one, or any."""
    with socket.socket() as probe:
        if os.name != "nt":  # As the web server does: there may be dead connections of one before.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, _USUAL_PORT))
        except OSError:
            probe.bind((_HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_it_answers(process: "subprocess.Popen[bytes]", port: int) -> None:
    while process.poll() is None:
        try:
            socket.create_connection((_HOST, port), timeout=1).close()
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise _ended(process.returncode)


def _ended(code: int) -> MixpanelAssetsError:
    return MixpanelAssetsError(f"the Dagster UI ended by itself (exit code {code}), see its lines above")


def _end(process: "subprocess.Popen[bytes]") -> None:
    try:
        process.wait(_STOP_SECONDS)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.kill()
        process.wait()
