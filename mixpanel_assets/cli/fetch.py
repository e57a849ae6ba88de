"""`mp fetch` and `mp retry`: each command by the options that only its stream has."""
# ruff: noqa: FBT002 - to Typer, a flag is a boolean parameter with a default

import json
from enum import Enum
from typing import Annotated, Any

import typer

from mixpanel_assets import settings
from mixpanel_assets.cli.day_options import ChunkDays, FromDate, LastDays, ToDate, day_range
from mixpanel_assets.cli.output import say
from mixpanel_assets.cli.sync_command import AT_ONCE, GUARD, QUOTA, stream_command
from mixpanel_assets.errors import ConfigurationError

fetch_app = typer.Typer(help="Copy profiles, events and lists into DuckDB.", no_args_is_help=True)
retry_app = typer.Typer(help="Fetch again what failed last time, and nothing else.", no_args_is_help=True)

Where = Annotated[str | None, typer.Option("--where", "-w", help='Filter, e.g. \'properties["plan"] == "pro"\'.')]


class EventTimes(str, Enum):
    """What `time` of an event is."""

    utc = "utc"
    project = "project"


Times = Annotated[
    EventTimes | None,
    typer.Option(help="`time` of events is UTC, or the project's wall clock (default: MP_EVENT_TIMES, or utc)."),
]


@stream_command(fetch_app, "profiles", AT_ONCE, GUARD, QUOTA)
def fetch_profiles(
    where: Where = None,
    cohort: Annotated[int | None, typer.Option("--cohort", "-c", help="Only members of this cohort.")] = None,
    include_all_users: Annotated[
        bool, typer.Option("--include-all-users", help="With --cohort: also ids that have no profile.")
    ] = False,
    distinct_id: Annotated[
        list[str] | None, typer.Option(help="Only the profile of this id; may be repeated, or a JSON list of ids.")
    ] = None,
    behaviors: Annotated[
        str | None,
        typer.Option(
            help='What --where may count, as JSON: [{"window": "30d", "name": "x", "event_selectors": [{"event": '
            '"Signup"}]}], for (behaviors["x"] > 0).'
        ),
    ] = None,
    as_of_timestamp: Annotated[
        int | None, typer.Option(help="With --behaviors: the end of their windows, in seconds since 1970.")
    ] = None,
    output_properties: Annotated[
        list[str] | None,
        typer.Option(help='Only these properties: repeated, or a JSON list such as ["$email", "plan"].'),
    ] = None,
    page_size: Annotated[int | None, typer.Option(help="Profiles per page wished for; Mixpanel decides.")] = None,
    incremental: Annotated[
        bool, typer.Option("--incremental", help="Only those updated since the last sync; all once a day.")
    ] = False,
    overlap_hours: Annotated[
        float | None, typer.Option(help="With --incremental: how long before the last sync (default 2).")
    ] = None,
    history: Annotated[
        bool, typer.Option("--history", help="From now on keep what each profile was, in mixpanel.profile_history.")
    ] = False,
    data_group_id: Annotated[str | None, typer.Option(hidden=True)] = None,
    max_missing_fraction: Annotated[
        float | None, typer.Option(help="Share of profiles that may be missing from the pages (default 0.001).")
    ] = None,
) -> dict[str, Any]:
    """Copy all profiles to the table mixpanel.profiles.

    Examples: mp fetch profiles -p; mp fetch profiles -p --where 'properties["plan"] == "pro"'
    """
    return {
        "where": where,
        "cohort_id": cohort,
        "include_all_users": include_all_users or None,
        "distinct_ids": names(distinct_id),
        "behaviors": behaviors,
        "as_of_timestamp": as_of_timestamp,
        "output_properties": names(output_properties),
        "page_size": page_size,
        "incremental": incremental or None,
        "overlap_hours": overlap_hours,
        "history": history or None,
        "data_group_id": data_group_id,
        "max_missing_fraction": max_missing_fraction,
    }


@stream_command(retry_app, "profiles", AT_ONCE, QUOTA, retry=True)
def retry_profiles() -> dict[str, Any] | None:
    """Fetch the profile pages that failed last time, and publish the complete snapshot.

    Mixpanel forgets a session after a while; then everything is fetched anew.
    """
    if _nothing_is_owed("profiles"):
        return None
    return {"retry_failed_pages": True}


@stream_command(fetch_app, "events", AT_ONCE, GUARD, QUOTA, units="chunks")
def fetch_events(
    from_date: FromDate = None,
    to_date: ToDate = None,
    last: LastDays = None,
    chunk_days: ChunkDays = None,
    events: Annotated[
        list[str] | None,
        typer.Option("--events", "-e", help='Only these events: repeated, or a JSON list: ["Sign up", "Log in"].'),
    ] = None,
    where: Where = None,
    limit: Annotated[
        int | None,
        typer.Option(help="A sample of at most so many, into the table mixpanel.events_sample instead."),
    ] = None,
    times: Times = None,
) -> dict[str, Any]:
    """Copy the events of a range of days to the table mixpanel.events.

    Examples: mp fetch events --from 2026-01-01 --to 2026-03-31 -p; mp fetch events --last 7d
    """
    return {
        "days": day_range(from_date, to_date, last),
        "chunk_days": chunk_days,
        "events": names(events),
        "where": where,
        "limit": limit,
        "times": times.value if times else None,
    }


@stream_command(retry_app, "events", AT_ONCE, GUARD, QUOTA, units="chunks", retry=True)
def retry_events(
    chunk_days: ChunkDays = None,
    times: Times = None,
) -> dict[str, Any] | None:
    """Fetch the days of events that failed and have not come since."""
    if _nothing_is_owed("events"):
        return None
    return {
        "chunk_days": chunk_days,
        "retry_failed_ranges": True,
        "times": times.value if times else None,
    }


@stream_command(fetch_app, "groups", AT_ONCE, GUARD, QUOTA, is_list=True)
def fetch_groups(
    group: Annotated[
        list[str] | None,
        typer.Option("--group", "-g", metavar="NAME=ID", help="A kind of group; may be repeated (default: MP_GROUPS)."),
    ] = None,
    where: Where = None,
    output_properties: Annotated[
        list[str] | None, typer.Option(help="Only these properties: repeated, or a JSON list.")
    ] = None,
    page_size: Annotated[int | None, typer.Option(help="Groups per page wished for; Mixpanel decides.")] = None,
    max_missing_fraction: Annotated[
        float | None, typer.Option(help="Share of a kind's groups that may be missing (default 0.001).")
    ] = None,
) -> dict[str, Any]:
    """Copy groups, such as companies, to the table mixpanel.groups: one counted request for each kind.

    Example: mp fetch groups --group company=-1405123841946871899
    """
    return {
        "groups": _pairs(group),
        "where": where,
        "output_properties": names(output_properties),
        "page_size": page_size,
        "max_missing_fraction": max_missing_fraction,
    }


@stream_command(retry_app, "groups", QUOTA, is_list=True, retry=True)
def retry_groups() -> dict[str, Any] | None:
    """Fetch the kinds of groups that failed last time."""
    if _nothing_is_owed("groups"):
        return None
    return {"retry_failed_pages": True}


@stream_command(fetch_app, "cohorts", GUARD, QUOTA, is_list=True)
def fetch_cohorts() -> dict[str, Any]:
    """Copy the list of cohorts to the table mixpanel.cohorts: names and sizes, no members."""
    return {}


@stream_command(fetch_app, "annotations", GUARD, is_list=True)
def fetch_annotations(
    from_date: Annotated[str | None, typer.Option("--from", metavar="DATE", help="Only from this day on.")] = None,
    to_date: Annotated[str | None, typer.Option("--to", metavar="DATE", help="Only up to this day.")] = None,
) -> dict[str, Any]:
    """Copy the notes on the project's charts to the table mixpanel.annotations."""
    return {"from_date": from_date, "to_date": to_date}


@stream_command(fetch_app, "lexicon_schemas", GUARD, is_list=True)
def fetch_lexicon_schemas(
    entity_type: Annotated[str | None, typer.Option(help="Only what is said of this: event or profile.")] = None,
) -> dict[str, Any]:
    """Copy what Lexicon says of events and properties to the table mixpanel.lexicon_schemas."""
    return {"entity_type": entity_type}


@stream_command(fetch_app, "cohort_members", AT_ONCE, GUARD, QUOTA, is_list=True)
def fetch_cohort_members(
    cohort: Annotated[
        list[int] | None, typer.Option("--cohort", "-c", help="Only this cohort, by its number; may be repeated.")
    ] = None,
    cohort_name: Annotated[
        list[str] | None, typer.Option(help="Only the cohort of this name; may be repeated, or a JSON list of names.")
    ] = None,
    only_profiles: Annotated[bool, typer.Option("--only-profiles", help="No members that have no profile.")] = False,
    page_size: Annotated[int | None, typer.Option(help="Members per page wished for; Mixpanel decides.")] = None,
) -> dict[str, Any]:
    """Copy who is in which cohort to the table mixpanel.cohort_members: one counted request per cohort."""
    return {
        "cohort_ids": cohort or None,
        "cohort_names": names(cohort_name),
        "include_all_users": False if only_profiles else None,
        "page_size": page_size,
    }


@stream_command(retry_app, "cohort_members", QUOTA, is_list=True, retry=True)
def retry_cohort_members() -> dict[str, Any] | None:
    """Fetch the members of the cohorts that failed last time."""
    if _nothing_is_owed("cohort_members"):
        return None
    return {"retry_failed_pages": True}


def _pairs(given: list[str] | None) -> dict[str, str] | None:
    """Names with numbers, each given as NAME=ID."""
    if not given:
        return None
    pairs = [text.rpartition("=") for text in given]
    odd = next((text for text, (_, equals, _) in zip(given, pairs, strict=True) if not equals), None)
    if odd is not None:
        raise ConfigurationError(f"--group {odd!r}: write it as company=-1405123841946871899")
    if len({name for name, _, _ in pairs}) < len(pairs):
        raise ConfigurationError("--group: a name is there twice")
    return {name: number for name, _, number in pairs}


def names(given: list[str] | None) -> list[str] | None:
    """Names that were given one by one, or as a JSON list; a comma may be part of a name."""
    if not given:
        return None
    found: list[str] = []
    for text in given:
        if not text.lstrip().startswith("["):
            found.append(text)
            continue
        try:
            listed = json.loads(text)
        except ValueError as error:
            raise ConfigurationError(f"not a JSON list of names: {text!r} ({error})") from None
        if not all(isinstance(name, str) for name in listed):
            raise ConfigurationError(f"not a JSON list of names: {text!r}")
        found += listed
    return found


def _nothing_is_owed(what: str) -> bool:
    """Whether a retry has nothing to do; said, if so. Without a run: a failed one would turn a healthy asset red."""
    settings.project()
    from mixpanel_assets.runs.instances import open_instance
    from mixpanel_assets.runs.status import owes

    with open_instance() as instance:
        owed = owes(instance, what, say)
    if not owed:
        say(f"Nothing to fetch again: all of mixpanel/{what} that was asked for has come.")
    return not owed
