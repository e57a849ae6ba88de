"""`mp status` and `mp plan`: what is known without asking Mixpanel."""

from collections.abc import Mapping
from typing import Any

import typer

from mixpanel_assets.cli.day_options import ChunkDays, FromDate, LastDays, ToDate, day_range, days_or_last_week
from mixpanel_assets.cli.output import Format, FormatOption, print_result, print_rows, say, warn
from mixpanel_assets.process_setup import set_up_process

plan_app = typer.Typer(help="What a sync would cost, before it runs.", no_args_is_help=True)


def status(output: FormatOption = Format.json) -> None:
    """The last syncs, what failed in them, and what is left of the hour.

    Example: mp status --format table
    """
    set_up_process()
    from mixpanel_assets.runs.instances import open_instance
    from mixpanel_assets.runs.status import status as status_of
    from mixpanel_assets.streams.all import STREAMS

    with open_instance() as instance:
        known = status_of(instance, say)
    if output is Format.json:
        print_result(known, output)
        return
    print_rows("stream", {stream.name: _row(known.pop(stream.name) or {}) for stream in STREAMS})
    print_result(known, output)


def _row(said: Mapping[str, Any]) -> Mapping[str, Any]:
    """A stream as a row of the table: what it holds, what it lacks, and how its last run ended."""
    failed = said.get("failed_page_indices", said.get("failed_date_ranges"))
    return {
        "last sync": said.get("last_sync"),
        "stored": f"{said['days']:,} days" if "days" in said else said.get("rows"),
        "failed pages or days": failed,
        "last run": said.get("last_run_status"),
        "why it failed": said.get("last_run_error"),
    }


@plan_app.command("all")
def plan_all(
    from_date: FromDate = None,
    to_date: ToDate = None,
    last: LastDays = None,
    chunk_days: ChunkDays = None,
    output: FormatOption = Format.json,
) -> None:
    """Requests that a sync of each stream needs, and all of them together; of events the last week, or these days."""
    set_up_process()
    from mixpanel_assets.runs.instances import open_instance
    from mixpanel_assets.runs.status import plan_all as plan_of_all
    from mixpanel_assets.streams.all import STREAMS

    with open_instance() as instance:
        planned = plan_of_all(instance, *days_or_last_week(from_date, to_date, last), chunk_days)
    if output is Format.table:
        names = ("requests", "counted_requests", "left", "fits", "last_sync")
        plans = {stream.name: planned.pop(stream.name) for stream in STREAMS}
        print_rows("stream", {name: {key: plan[key] for key in names} for name, plan in plans.items()})
    print_result(planned, output)
    for name in planned["not_known"]:
        say(f"{name}: no sync yet, so its pages are not known; each costs a request besides")


@plan_app.command("profiles")
def plan_profiles(output: FormatOption = Format.json) -> None:
    """Requests that a profiles sync needs and that are left; asks Mixpanel nothing, goes by the last sync."""
    _plan_pages("profiles", output)


@plan_app.command("groups")
def plan_groups(output: FormatOption = Format.json) -> None:
    """The same for the groups of MP_GROUPS."""
    _plan_pages("groups", output)


@plan_app.command("cohort_members")
def plan_cohort_members(output: FormatOption = Format.json) -> None:
    """The same for the members of cohorts."""
    _plan_pages("cohort_members", output)


def _plan_pages(name: str, output: Format) -> None:
    set_up_process()
    from mixpanel_assets.runs.instances import open_instance
    from mixpanel_assets.runs.status import plan_pages as plan
    from mixpanel_assets.runs.syncs import stream_named
    from mixpanel_assets.streams.budgets import quota_warning

    with open_instance() as instance:
        planned = plan(instance, stream_named(name))
    print_result(planned, output)
    if planned["requests"] is None:
        say(f"No sync of {name} yet, so their pages are not known: page 0 of the first, one request, will say.")
        return
    warning = quota_warning(planned["requests"], planned["hourly_limit"])
    if warning:
        warn(warning)


@plan_app.command("events")
def plan_events(
    from_date: FromDate = None,
    to_date: ToDate = None,
    last: LastDays = None,
    chunk_days: ChunkDays = None,
    output: FormatOption = Format.json,
) -> None:
    """Requests that a sync of these days needs and that are left; asks Mixpanel nothing.

    Example: mp plan events --from 2025-01-01 --to 2025-12-31 --chunk-days 14
    """
    set_up_process()
    from mixpanel_assets.runs.instances import open_instance
    from mixpanel_assets.runs.status import plan_events as plan

    with open_instance() as instance:
        planned = plan(instance, *day_range(from_date, to_date, last), chunk_days)
    print_result(planned, output)
    if not planned["fits"]:
        fitting = planned["chunk_days_that_fit"]
        advice = f"with --chunk-days {fitting} it does" if fitting else "sync later, or ask for fewer days"
        warn(f"{planned['requests']} requests do not fit into what is left of the hour: {advice}")
