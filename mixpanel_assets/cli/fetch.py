"""`mp fetch` and `mp retry`: syncs from the command line."""
# ruff: noqa: FBT002 - to Typer, a flag is a boolean parameter with a default

import json
from enum import Enum
from typing import Annotated, Any

import typer

from mixpanel_assets import settings
from mixpanel_assets.cli.day_options import FromDate, LastDays, ToDate, day_range
from mixpanel_assets.cli.output import Format, FormatOption, print_result, say, warn
from mixpanel_assets.errors import ConfigurationError
from mixpanel_assets.process_setup import set_up_process

fetch_app = typer.Typer(help="Copy profiles, events and lists into DuckDB.", no_args_is_help=True)
retry_app = typer.Typer(help="Fetch again what failed last time, and nothing else.", no_args_is_help=True)

Parallel = Annotated[bool, typer.Option("--parallel", "-p", help="Several at a time (default: one after the other).")]
Workers = Annotated[int | None, typer.Option(help="How many at a time; needs --parallel.", show_default=False)]
RetryWorkers = Annotated[int | None, typer.Option("--workers", help="How many at a time.", show_default=False)]
ChunkDays = Annotated[int, typer.Option(min=1, max=100, help="Days per request.")]
Where = Annotated[str | None, typer.Option("--where", "-w", help='Filter, e.g. \'properties["plan"] == "pro"\'.')]
NoProgress = Annotated[bool, typer.Option("--no-progress", help="No bar and no progress lines.")]
Verbose = Annotated[int, typer.Option("--verbose", "-v", count=True, help="Dagster's log lines too; -vv: all.")]


class OnQuota(str, Enum):
    """What a sync does that does not fit into the hour."""

    stop = "stop"
    wait = "wait"


class EventTimes(str, Enum):
    """What `time` of an event is."""

    utc = "utc"
    project = "project"


Times = Annotated[
    EventTimes | None,
    typer.Option(help="`time` of events is UTC, or the project's wall clock (default: MP_EVENT_TIMES, or utc)."),
]
RemovedFraction = Annotated[
    float | None,
    typer.Option("--max-removed-fraction", help="Largest share of what is stored that may vanish (default 0.5)."),
]
Quota = Annotated[OnQuota, typer.Option("--on-quota", help="When the hourly quota is too small: stop, or wait for it.")]


@fetch_app.command("profiles")
def fetch_profiles(
    parallel: Parallel = False,
    workers: Workers = None,
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
    data_group_id: Annotated[str | None, typer.Option(help="Group profiles of this group, not users.")] = None,
    max_removed_fraction: RemovedFraction = None,
    max_missing_fraction: Annotated[
        float | None, typer.Option(help="Share of profiles that may be missing from the pages (default 0.001).")
    ] = None,
    on_quota: Quota = OnQuota.stop,
    output: FormatOption = Format.json,
    no_progress: NoProgress = False,
    verbose: Verbose = 0,
) -> int:
    """Copy all profiles to the table mixpanel.profiles.

    Examples: mp fetch profiles -p; mp fetch profiles -p --where 'properties["plan"] == "pro"'
    """
    config = {
        "where": where,
        "cohort_id": cohort,
        "include_all_users": include_all_users or None,
        "distinct_ids": names(distinct_id),
        "behaviors": behaviors,
        "as_of_timestamp": as_of_timestamp,
        "output_properties": names(output_properties),
        "page_size": page_size,
        "data_group_id": data_group_id,
        "max_removed_fraction": max_removed_fraction,
        "max_missing_fraction": max_missing_fraction,
        "on_quota": on_quota.value,
    }
    return _sync(
        "profiles", config, output, parallel=parallel, workers=workers, wanted=not no_progress, verbose=verbose
    )


@retry_app.command("profiles")
def retry_profiles(
    workers: RetryWorkers = None,
    on_quota: Quota = OnQuota.stop,
    output: FormatOption = Format.json,
    no_progress: NoProgress = False,
    verbose: Verbose = 0,
) -> int:
    """Fetch the profile pages that failed last time, and publish the complete snapshot.

    Mixpanel forgets a session after a while; then everything is fetched anew.
    """
    if _nothing_is_owed("profiles"):
        return 0
    config = {"retry_failed_pages": True, "on_quota": on_quota.value}
    return _sync("profiles", config, output, parallel=True, workers=workers, wanted=not no_progress, verbose=verbose)


@fetch_app.command("events")
def fetch_events(
    from_date: FromDate = None,
    to_date: ToDate = None,
    last: LastDays = None,
    parallel: Parallel = False,
    workers: Workers = None,
    chunk_days: ChunkDays = 7,
    events: Annotated[
        list[str] | None,
        typer.Option("--events", "-e", help='Only these events: repeated, or a JSON list: ["Sign up", "Log in"].'),
    ] = None,
    where: Where = None,
    times: Times = None,
    max_removed_fraction: RemovedFraction = None,
    on_quota: Quota = OnQuota.stop,
    output: FormatOption = Format.json,
    no_progress: NoProgress = False,
    verbose: Verbose = 0,
) -> int:
    """Copy the events of a range of days to the table mixpanel.events.

    Examples: mp fetch events --from 2026-01-01 --to 2026-03-31 -p; mp fetch events --last 7d
    """
    config = {
        "chunk_days": chunk_days,
        "events": names(events),
        "where": where,
        "times": times.value if times else None,
        "max_removed_fraction": max_removed_fraction,
        "on_quota": on_quota.value,
    }
    days = day_range(from_date, to_date, last)
    return _sync(
        "events",
        config,
        output,
        units="chunks",
        days=days,
        parallel=parallel,
        workers=workers,
        wanted=not no_progress,
        verbose=verbose,
    )


@retry_app.command("events")
def retry_events(
    workers: RetryWorkers = None,
    chunk_days: ChunkDays = 7,
    times: Times = None,
    max_removed_fraction: RemovedFraction = None,
    on_quota: Quota = OnQuota.stop,
    output: FormatOption = Format.json,
    no_progress: NoProgress = False,
    verbose: Verbose = 0,
) -> int:
    """Fetch the days of events that failed and have not come since."""
    if _nothing_is_owed("events"):
        return 0
    config = {
        "chunk_days": chunk_days,
        "retry_failed_ranges": True,
        "times": times.value if times else None,
        "max_removed_fraction": max_removed_fraction,
        "on_quota": on_quota.value,
    }
    return _sync(
        "events",
        config,
        output,
        units="chunks",
        parallel=True,
        workers=workers,
        wanted=not no_progress,
        verbose=verbose,
    )


@fetch_app.command("cohorts")
def fetch_cohorts(
    max_removed_fraction: RemovedFraction = None,
    on_quota: Quota = OnQuota.stop,
    output: FormatOption = Format.json,
    no_progress: NoProgress = False,
    verbose: Verbose = 0,
) -> int:
    """Copy the list of cohorts to the table mixpanel.cohorts: names and sizes, no members."""
    given = {"max_removed_fraction": max_removed_fraction, "on_quota": on_quota.value}
    return _sync("cohorts", given, output, is_list=True, wanted=not no_progress, verbose=verbose)


@fetch_app.command("annotations")
def fetch_annotations(
    from_date: Annotated[str | None, typer.Option("--from", metavar="DATE", help="Only from this day on.")] = None,
    to_date: Annotated[str | None, typer.Option("--to", metavar="DATE", help="Only up to this day.")] = None,
    max_removed_fraction: RemovedFraction = None,
    output: FormatOption = Format.json,
    no_progress: NoProgress = False,
    verbose: Verbose = 0,
) -> int:
    """Copy the notes on the project's charts to the table mixpanel.annotations."""
    given = {"from_date": from_date, "to_date": to_date, "max_removed_fraction": max_removed_fraction}
    return _sync("annotations", given, output, is_list=True, wanted=not no_progress, verbose=verbose)


@fetch_app.command("lexicon_schemas")
def fetch_lexicon_schemas(
    entity_type: Annotated[str | None, typer.Option(help="Only what is said of this: event or profile.")] = None,
    max_removed_fraction: RemovedFraction = None,
    output: FormatOption = Format.json,
    no_progress: NoProgress = False,
    verbose: Verbose = 0,
) -> int:
    """Copy what Lexicon says of events and properties to the table mixpanel.lexicon_schemas."""
    given = {"entity_type": entity_type, "max_removed_fraction": max_removed_fraction}
    return _sync("lexicon_schemas", given, output, is_list=True, wanted=not no_progress, verbose=verbose)


@fetch_app.command("cohort_members")
def fetch_cohort_members(
    parallel: Parallel = False,
    workers: Workers = None,
    cohort: Annotated[
        list[int] | None, typer.Option("--cohort", "-c", help="Only this cohort, by its number; may be repeated.")
    ] = None,
    cohort_name: Annotated[
        list[str] | None, typer.Option(help="Only the cohort of this name; may be repeated, or a JSON list of names.")
    ] = None,
    only_profiles: Annotated[bool, typer.Option("--only-profiles", help="No members that have no profile.")] = False,
    page_size: Annotated[int | None, typer.Option(help="Members per page wished for; Mixpanel decides.")] = None,
    max_removed_fraction: RemovedFraction = None,
    on_quota: Quota = OnQuota.stop,
    output: FormatOption = Format.json,
    no_progress: NoProgress = False,
    verbose: Verbose = 0,
) -> int:
    """Copy who is in which cohort to the table mixpanel.cohort_members: one counted request per cohort."""
    given = {
        "cohort_ids": cohort or None,
        "cohort_names": names(cohort_name),
        "include_all_users": False if only_profiles else None,
        "page_size": page_size,
        "max_removed_fraction": max_removed_fraction,
        "on_quota": on_quota.value,
    }
    return _sync(
        "cohort_members",
        given,
        output,
        is_list=True,
        parallel=parallel,
        workers=workers,
        wanted=not no_progress,
        verbose=verbose,
    )


@retry_app.command("cohort_members")
def retry_cohort_members(
    on_quota: Quota = OnQuota.stop,
    output: FormatOption = Format.json,
    no_progress: NoProgress = False,
    verbose: Verbose = 0,
) -> int:
    """Fetch the members of the cohorts that failed last time."""
    given = {"retry_failed_pages": True, "on_quota": on_quota.value}
    return _sync("cohort_members", given, output, is_list=True, parallel=True, wanted=not no_progress, verbose=verbose)


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
    from mixpanel_assets.runs.status import owes_days, owes_pages

    with open_instance() as instance:
        owed = owes_pages(instance, say) if what == "profiles" else owes_days(instance, say)
    if not owed:
        say(f"Nothing to fetch again: all of mixpanel/{what} that was asked for has come.")
    return not owed


def _sync(
    name: str,
    given: dict[str, Any],
    output: Format,
    *,
    wanted: bool,
    verbose: int,
    units: str = "pages",
    days: tuple[str, str] | None = None,
    parallel: bool = False,
    workers: int | None = None,
    is_list: bool = False,
) -> int:
    """Sync a stream, and print its result. Returns the exit code.

    Args:
        name: Of the stream.
        given: Its settings.
        output: How the result is printed.
        wanted: Whether progress is shown.
        verbose: How much of Dagster's log.
        units: What it comes in.
        days: Of events: the first and the last.
        parallel: Several at a time.
        workers: How many.
        is_list: The result names no pages; what is missing, the problems say.
    """
    from mixpanel_assets.cli.progress import view

    check_settings(parallel=parallel, workers=workers)
    with view(name, units, wanted=wanted, bar=not verbose) as shown:
        set_up_process()
        from mixpanel_assets.runs import syncs

        stream = syncs.stream_named(name)
        config = syncs.checked_config(stream, given)
        at_a_time = syncs.workers_for(stream, workers) if parallel else 1
        synced = syncs.sync(stream, config, at_a_time, shown, days=days, log_level=log_level(verbose))
    print_result((synced.result if parallel and not is_list else synced.sequential).to_dict(), output)
    if synced.result.has_failures and not is_list:
        warn(f"{synced.result.words}. Fetch them with: mp retry {name}")
    else:
        for problem in synced.problems:
            warn(problem)
    return 1 if synced.problems else 0


def check_settings(*, parallel: bool, workers: int | None) -> None:
    """Refuse at once what needs no Dagster to be seen: missing credentials, options that contradict each other."""
    if workers is not None and workers < 1:
        raise ConfigurationError(f"--workers {workers} cannot fetch anything: ask for 1 or more")
    if workers is not None and not parallel:
        warn("--workers does nothing without --parallel")
    settings.project()


def log_level(verbose: int) -> str:
    """From which level on Dagster's own lines are shown."""
    return ("CRITICAL", "INFO", "DEBUG")[min(verbose, 2)]
