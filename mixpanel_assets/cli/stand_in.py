"""`mp demo` and `mp sandbox`: a Mixpanel to play with on this machine."""

import json
from contextlib import suppress
from typing import Annotated

import typer

from mixpanel_assets.cli.demo_ui import export_line
from mixpanel_assets.cli.output import say, show
from mixpanel_assets.errors import ConfigurationError

_FAULT_HELP = (
    'Something to go wrong, as JSON, e.g. \'{"endpoint": "engage", "page": 3, "do": "status:503", "times": 2}\'; may '
    "be repeated. A wrong kind names the known ones; mixpanel_assets/sandbox/faults.py describes them."
)


def demo(
    profiles: Annotated[int, typer.Option(min=0, help="Profiles that the stand-in Mixpanel holds.")] = 20_000,
    latency: Annotated[float, typer.Option(min=0, help="Seconds before each of its answers.")] = 1.0,
    workers: Annotated[int, typer.Option(min=1, max=5, help="Pages fetched at a time.")] = 5,
    seed: Annotated[int, typer.Option(help="Another seed, other people.")] = 7,
    ui: Annotated[bool, typer.Option("--ui", help="Then open the Dagster UI, until Ctrl-C.")] = False,  # noqa: FBT002
) -> None:
    """See it work: a stand-in Mixpanel on this machine, copied to a DuckDB file of its own.

    Nothing of yours is touched: the demo has its own folder, `demo` in the Dagster home.
    """
    from mixpanel_assets.cli import demo as demo_project
    from mixpanel_assets.cli.demo_ui import serve_ui
    from mixpanel_assets.cli.progress import view

    with demo_project.stage(profiles, latency, seed) as home:
        with view("profiles", "pages") as shown:
            stored = demo_project.run(shown, workers)
        with view("events", "chunks") as shown:
            events = demo_project.run_events(shown)
        show(demo_project.stored_lines(stored, events))
        if ui:
            serve_ui(home)
        else:
            show(demo_project.ui_lines(home))


def sandbox(
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; 0: any free one.")] = 0,
    profiles: Annotated[int, typer.Option(min=0, help="Profiles in the project.")] = 5_000,
    events_per_day: Annotated[int, typer.Option(min=0, help="Events of each day.")] = 1_000,
    latency: Annotated[float, typer.Option(min=0, help="Seconds before each answer.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Another seed, other people and events.")] = 7,
    page_size: Annotated[int, typer.Option(min=1, help="Profiles on a page.")] = 1_000,
    history_days: Annotated[int | None, typer.Option(min=0, help="Days before today with events.")] = None,
    no_limits: Annotated[bool, typer.Option("--no-limits", help="Never answer 429.")] = False,  # noqa: FBT002
    fault: Annotated[list[str] | None, typer.Option(metavar="JSON", help=_FAULT_HELP)] = None,
) -> None:
    """Start a stand-in Mixpanel on 127.0.0.1, until Ctrl-C; prints the variables to export.

    Example: mp sandbox --latency 0.5, then in another terminal paste what it printed and run: mp fetch profiles -p
    """
    from mixpanel_assets.sandbox import Fault, Limits, Population, Sandbox

    try:
        faults = [Fault.from_dict(json.loads(text)) for text in fault or []]
    except json.JSONDecodeError:
        raise ConfigurationError('--fault: give JSON such as {"endpoint": "engage", "do": "status:503"}') from None
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigurationError(f"--fault: {error}") from None
    stand_in = Sandbox(
        Population(profiles=profiles, seed=seed, events_per_day=events_per_day),
        latency=latency,
        page_size=page_size,
        faults=faults,
        limits=Limits(enforce=not no_limits),
        port=port,
        history_days=history_days,
    )
    try:
        stand_in.start()
    except OSError as error:
        raise ConfigurationError(f"cannot listen on 127.0.0.1:{port}: {error.strerror}") from None
    with suppress(KeyboardInterrupt):
        for name, value in stand_in.environment.items():
            show(export_line(name, value))
        say(f"{profiles:,} profiles on {stand_in.url}; Ctrl-C ends it")
        stand_in.serve_forever()
    stand_in.stop()
