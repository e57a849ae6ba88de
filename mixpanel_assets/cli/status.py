"""`mp status` and `mp plan`: what is known without asking Mixpanel."""

from typing import Annotated

import typer

from mixpanel_assets.cli.day_options import FromDate, LastDays, ToDate, day_range
from mixpanel_assets.cli.output import Format, FormatOption, print_result, say, warn
from mixpanel_assets.process_setup import set_up_process

plan_app = typer.Typer(help="What a sync would cost, before it runs.", no_args_is_help=True)


def status(output: FormatOption = Format.json) -> None:
    """The last syncs, what failed in them, and what is left of the hour.

    Example: mp status --format table
    """
    set_up_process()
    from mixpanel_assets.runs.instances import open_instance
    from mixpanel_assets.runs.status import status as status_of

    with open_instance() as instance:
        print_result(status_of(instance, say), output)


@plan_app.command("profiles")
def plan_profiles(output: FormatOption = Format.json) -> None:
    """Requests that a profiles sync needs and that are left; asks Mixpanel nothing, goes by the last sync."""
    set_up_process()
    from mixpanel_assets.runs.instances import open_instance
    from mixpanel_assets.runs.status import plan_profiles as plan
    from mixpanel_assets.streams.budgets import quota_warning

    with open_instance() as instance:
        planned = plan(instance)
    print_result(planned, output)
    if planned["requests"] is None:
        say("No sync of profiles yet, so their pages are not known: page 0 of the first, one request, will say.")
        return
    warning = quota_warning(planned["requests"], planned["hourly_limit"])
    if warning:
        warn(warning)


@plan_app.command("events")
def plan_events(
    from_date: FromDate = None,
    to_date: ToDate = None,
    last: LastDays = None,
    chunk_days: Annotated[int, typer.Option(min=1, max=100, help="Days per request.")] = 7,
    output: FormatOption = Format.json,
) -> None:
    """Requests that a sync of these days needs and that are left; asks Mixpanel nothing.

    Example: mp plan events --from 2025-01-01 --to 2025-12-31 --chunk-days 14
    """
    set_up_process()
    from mixpanel_assets.runs.status import plan_events as plan

    planned = plan(*day_range(from_date, to_date, last), chunk_days)
    print_result(planned, output)
    if not planned["fits"]:
        fitting = planned["chunk_days_that_fit"]
        advice = f"with --chunk-days {fitting} it does" if fitting else "sync later, or ask for fewer days"
        warn(f"{planned['requests']} requests do not fit into what is left of the hour: {advice}")
