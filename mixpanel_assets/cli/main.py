"""The commands put together, and what their end means to the caller.

Exit codes: 0 all stored; 1 something is missing, or nothing came; 2 the credentials are missing or refused; 3 an
argument or setting is wrong; 130 Ctrl-C.
"""

import sys
import warnings
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from mixpanel_assets import settings
from mixpanel_assets.cli import export, fetch, fetch_all, stand_in, status, streams, version
from mixpanel_assets.cli.output import say, warn
from mixpanel_assets.errors import (
    AuthenticationError,
    Cancelled,
    ConfigurationError,
    MissingCredentialsError,
    MixpanelAssetsError,
)

OK, FAILURE, UNAUTHENTICATED, INVALID, INTERRUPTED = 0, 1, 2, 3, 130
# What a wrong command line raises. Typer exports only a grandchild of it, and where that lives moved between releases.
_CommandLineError: Any = typer.BadParameter.__mro__[2]

_EPILOG = (
    "Start with: mp demo. A project of your own is named by the variables MP_USERNAME, MP_SECRET, MP_PROJECT_ID and "
    "MP_REGION (us, eu or in), also in a file .env; MP_DUCKDB_PATH and DAGSTER_HOME say where things are kept; README "
    "lists the others."
)


class _InOrder(TyperGroup):
    """The commands in the order in which somebody comes to need them; Typer's puts those with subcommands last."""

    def list_commands(self, ctx: Any) -> list[str]:
        return ["demo", "plan", "fetch", "status", "retry", "export", "sandbox"]


app = typer.Typer(
    name="mp",
    cls=_InOrder,
    help="Copy a Mixpanel project's profiles and events into DuckDB.",
    epilog=_EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.callback()(version.options)
app.command()(stand_in.demo)
app.add_typer(status.plan_app, name="plan")
fetch.fetch_app.command("all")(fetch_all.fetch_all)
app.add_typer(fetch.fetch_app, name="fetch")
app.command()(status.status)
app.add_typer(fetch.retry_app, name="retry")
app.command()(export.export)
app.command()(stand_in.sandbox)


def main() -> NoReturn:
    """Run `mp` and end the process with its exit code."""
    streams.prepare()
    warnings.showwarning = _show_warning
    sys.exit(run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """The exit code of `mp <arguments>`; errors of ours become one line on stderr."""
    try:
        settings.read_env_file()
        code = app(arguments, standalone_mode=False, prog_name="mp")
        return code if isinstance(code, int) else OK
    except typer.Exit as end:
        return end.exit_code
    except _CommandLineError as error:
        error.show()
        return INVALID
    except (KeyboardInterrupt, typer.Abort):
        say("Stopped.")
        return INTERRUPTED
    except Cancelled as error:
        say(f"Stopped: {error}")
        return INTERRUPTED
    except MixpanelAssetsError as error:
        say(f"Error: {error}")
        return _code_of(error)
    except OSError as error:  # Of the help, which Typer prints, or of a file that no module speaks for.
        streams.discard(sys.stdout)
        if isinstance(error, BrokenPipeError):
            return OK
        say(f"Error: {error.strerror or error}{f': {error.filename}' if error.filename else ''}")
        return FAILURE


def _code_of(error: MixpanelAssetsError) -> int:
    if isinstance(error, (AuthenticationError, MissingCredentialsError)):
        return UNAUTHENTICATED
    return INVALID if isinstance(error, ConfigurationError) else FAILURE


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    # Remarks of libraries on their own parameters are of no use to somebody who runs `mp`.
    if category.__module__.startswith("mixpanel_assets"):
        warn(str(message))
