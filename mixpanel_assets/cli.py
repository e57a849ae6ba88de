"""`mp`: what can be said on the command line. Results go to stdout as JSON, everything for people to stderr.

Belongs here: options, exit codes, printing. Does not belong here: doing (fetch.py, demo.py, sandbox). Whatever is slow
to import (Dagster, DuckDB, requests) is imported where it is used, so that `mp --help` answers at once.
"""

import json
import os
import sys
import warnings
from collections.abc import Callable
from typing import Annotated, Any, NoReturn

import typer

from mixpanel_assets.errors import AuthenticationError, Cancelled, ConfigurationError, MixpanelAssetsError

OK, FAILURE, UNAUTHENTICATED, INVALID, INTERRUPTED = 0, 1, 2, 3, 130

app = typer.Typer(
    name="mp",
    help="Copy a Mixpanel project's profiles and events into DuckDB.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@app.command()
def demo(
    profiles: Annotated[int, typer.Option(min=0, help="Profiles that the stand-in Mixpanel holds.")] = 20_000,
    latency: Annotated[float, typer.Option(min=0, help="Seconds before each of its answers.")] = 1.0,
    workers: Annotated[int, typer.Option(min=1, max=5, help="Pages fetched at a time.")] = 5,
    seed: Annotated[int, typer.Option(help="Another seed, other people.")] = 7,
) -> None:
    """See it work: a stand-in Mixpanel on this machine, synced to a DuckDB file of its own."""
    from mixpanel_assets import demo as scene
    from mixpanel_assets.progress import view

    with view("profiles", "pages") as shown, scene.stage(profiles, latency, seed) as home:
        result = scene.run(shown, workers)
    print(scene.farewell(result, home))


@app.command()
def sandbox(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 0,
    profiles: Annotated[int, typer.Option(min=0, help="Profiles in the project.")] = 5_000,
    events_per_day: Annotated[int, typer.Option(min=0, help="Events of each day.")] = 1_000,
    latency: Annotated[float, typer.Option(min=0, help="Seconds before each answer.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Another seed, other people and events.")] = 7,
    page_size: Annotated[int, typer.Option(min=1, help="Profiles on a page.")] = 1_000,
    no_limits: Annotated[bool, typer.Option("--no-limits", help="Never answer 429.")] = False,  # noqa: FBT002
    fault: Annotated[
        list[str] | None,
        typer.Option(help='Something to go wrong, e.g. \'{"endpoint": "engage", "page": 3, "do": "status:503"}\'.'),
    ] = None,
) -> None:
    """A stand-in Mixpanel on 127.0.0.1, until Ctrl-C. Prints the variables to export."""
    from mixpanel_assets.sandbox import Fault, Limits, Population, Sandbox

    try:
        faults = [Fault.from_dict(json.loads(text)) for text in fault or []]
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"--fault: {error}") from None
    stand_in = Sandbox(
        Population(profiles=profiles, seed=seed, events_per_day=events_per_day),
        latency=latency,
        page_size=page_size,
        faults=faults,
        limits=Limits(enforce=not no_limits),
        port=port,
    )
    try:
        stand_in.start()
    except OSError as error:
        raise ConfigurationError(f"cannot listen on 127.0.0.1:{port}: {error.strerror}") from None
    for name, value in stand_in.environment.items():
        print(_export_line(name, value))
    sys.stdout.flush()
    print(f"{profiles} profiles on {stand_in.url}; Ctrl-C ends it", file=sys.stderr)
    stand_in.serve_forever()


def main() -> NoReturn:
    """Run `mp`; ends the process with an exit code: 0 all stored, 1 failure, 2 authentication, 3 invalid arguments."""
    warnings.showwarning = _show_warning
    sys.exit(_exit_code(lambda: app(standalone_mode=False)))


def _exit_code(command: Callable[[], Any]) -> int:
    """What the command's end means to the caller; errors become one line on stderr."""
    try:
        code = command()
        return code if isinstance(code, int) else OK
    except Cancelled as error:
        _say(str(error))
        return INTERRUPTED
    except KeyboardInterrupt:
        return INTERRUPTED
    except AuthenticationError as error:
        _say(f"Error: {error}")
        return UNAUTHENTICATED
    except ConfigurationError as error:
        _say(f"Error: {error}")
        return INVALID
    except MixpanelAssetsError as error:
        _say(f"Error: {error}")
        return FAILURE


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    # Dagster's remarks on its own parameters are of no use to somebody who runs `mp`.
    if category.__module__.startswith("mixpanel_assets"):
        _say(f"Warning: {message}")


def _export_line(name: str, value: str) -> str:
    return f"$env:{name} = '{value}'" if os.name == "nt" else f"export {name}='{value}'"
