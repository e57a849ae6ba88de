"""`mp status` and `mp plan`: what is known without asking Mixpanel."""

from typing import Annotated

import typer

from mixpanel_assets.cli.output import Format, FormatOption, print_result, say, warn

plan_app = typer.Typer(help="What a sync would cost, before it runs.", no_args_is_help=True)


def status(output: FormatOption = Format.json) -> None:
    """The last syncs, what failed in them, and what is left of the hour.

    Example: mp status --format table
    """
    from mixpanel_assets.runs.instances import open_instance
    from mixpanel_assets.runs.status import status as status_of

    with open_instance() as instance:
        print_result(status_of(instance, say), output)


@plan_app.command("profiles")
def plan_profiles(output: FormatOption = Format.json) -> None:
    """Requests that a profiles sync needs and that are left; asks Mixpanel nothing, goes by the last sync."""
    from mixpanel_assets.runs.instances import open_instance
    from mixpanel_assets.runs.status import plan_profiles as plan
    from mixpanel_assets.streams.budgets import quota_warning

    with open_instance() as instance:
        planned = plan(instance)
    print_result(planned, output)
    warning = quota_warning(planned["requests"], planned["hourly_limit"])
    if warning:
        warn(warning)


@plan_app.command("events")
def plan_events(
    from_date: Annotated[str, typer.Option("--from", metavar="DATE", help="First day, e.g. 2026-01-01.")],
    to_date: Annotated[str, typer.Option("--to", metavar="DATE", help="Last day, included.")],
    chunk_days: Annotated[int, typer.Option(min=1, max=100, help="Days per request.")] = 7,
    output: FormatOption = Format.json,
) -> None:
    """Requests that a sync of these days needs and that are left; asks Mixpanel nothing.

    Example: mp plan events --from 2025-01-01 --to 2025-12-31 --chunk-days 14
    """
    from mixpanel_assets.runs.status import plan_events as plan

    print_result(plan(from_date, to_date, chunk_days), output)
