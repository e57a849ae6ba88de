"""What the commands that sync a stream have in common: their options, the run, and what is printed of it."""
# ruff: noqa: FBT002 - to Typer, a flag is a boolean parameter with a default

import inspect
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mixpanel_assets import settings
from mixpanel_assets.cli.output import Format, FormatOption, print_result, warn
from mixpanel_assets.errors import ConfigurationError
from mixpanel_assets.process_setup import set_up_process

if TYPE_CHECKING:
    from mixpanel_assets.runs.syncs import Synced

Parallel = Annotated[bool, typer.Option("--parallel", "-p", help="Several at a time (default: one after the other).")]
Workers = Annotated[int | None, typer.Option(help="How many at a time; needs --parallel.", show_default=False)]
RetryWorkers = Annotated[int | None, typer.Option("--workers", help="How many at a time.", show_default=False)]
NoProgress = Annotated[bool, typer.Option("--no-progress", help="No bar and no progress lines.")]
Verbose = Annotated[int, typer.Option("--verbose", "-v", count=True, help="Dagster's log lines too; -vv: all.")]


class OnQuota(str, Enum):
    """What a sync does that does not fit into the hour."""

    stop = "stop"
    wait = "wait"


RemovedFraction = Annotated[
    float | None,
    typer.Option("--max-removed-fraction", help="Largest share of what is stored that may vanish (default 0.5)."),
]
Quota = Annotated[OnQuota, typer.Option("--on-quota", help="When the hourly quota is too small: stop, or wait for it.")]


def _shared(
    parallel: Parallel = False,
    workers: Workers = None,
    max_removed_fraction: RemovedFraction = None,
    on_quota: Quota = OnQuota.stop,
    output: FormatOption = Format.json,
    no_progress: NoProgress = False,
    verbose: Verbose = 0,
) -> None:
    """The options that the commands share, in the order of their help."""


_SHARED = inspect.signature(_shared).parameters
AT_ONCE, GUARD, QUOTA = "parallel", "max_removed_fraction", "on_quota"
_ALWAYS = ("output", "no_progress", "verbose")


def stream_command(
    app: typer.Typer, name: str, *offered: str, units: str = "pages", is_list: bool = False, retry: bool = False
) -> Callable[[Callable[..., dict[str, Any] | None]], None]:
    """Make a function the command that syncs a stream: it has the stream's own options, and returns its settings.

    The setting `days` are the first and the last day; None instead of settings: there is nothing to do.

    Args:
        app: The commands it joins.
        name: Of the stream.
        offered: Which of the shared options it has: AT_ONCE, with the number of workers, GUARD, QUOTA.
        units: What the stream comes in.
        is_list: The result names no pages; what is missing, the problems say.
        retry: Several at a time, without being told to.
    """
    has = {*offered, *_ALWAYS, *(("workers",) if AT_ONCE in offered else ())}
    shared = [each for each in _SHARED.values() if each.name in has and not (retry and each.name == AT_ONCE)]
    if retry:
        shared = [each.replace(annotation=RetryWorkers) if each.name == "workers" else each for each in shared]

    def register(own: Callable[..., dict[str, Any] | None]) -> None:
        def command(**given: Any) -> int:
            chosen = {each.name: given.pop(each.name) for each in shared}
            wanted = own(**given)
            if wanted is None:
                return 0
            if GUARD in chosen:
                wanted[GUARD] = chosen[GUARD]
            if QUOTA in chosen:
                wanted[QUOTA] = chosen[QUOTA].value
            return _sync(name, wanted, chosen, units=units, parallel=chosen.get(AT_ONCE, retry), is_list=is_list)

        signature = inspect.signature(own)
        parameters = [
            each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in (*signature.parameters.values(), *shared)
        ]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what Typer reads
        command.__annotations__ = {each.name: each.annotation for each in parameters}
        command.__doc__ = own.__doc__
        app.command(name)(command)

    return register


def _sync(
    name: str, given: dict[str, Any], chosen: dict[str, Any], *, units: str, parallel: bool, is_list: bool
) -> int:
    """Sync a stream, and print its result. Returns the exit code."""
    synced = sync_shown(name, given, chosen, units=units, parallel=parallel)
    print_result((synced.result if parallel and not is_list else synced.sequential).to_dict(), chosen["output"])
    if synced.result.has_failures and not is_list:
        warn(f"{synced.result.words}. Fetch them with: mp retry {name}")
    else:
        for problem in synced.problems:
            warn(problem)
    return 1 if synced.problems else 0


def sync_shown(name: str, given: dict[str, Any], chosen: dict[str, Any], *, units: str, parallel: bool) -> "Synced":
    """Sync a stream while stderr shows how far it is.

    Args:
        name: Of the stream.
        given: Its settings, and perhaps the `days`.
        chosen: The shared options: `verbose`, `no_progress`, perhaps `workers`.
        units: What it comes in.
        parallel: Several at a time.
    """
    from mixpanel_assets.cli.progress import view

    workers, verbose, days = chosen.get("workers"), chosen["verbose"], given.pop("days", None)
    check_settings(parallel=parallel, workers=workers)
    with view(name, units, wanted=not chosen["no_progress"], bar=not verbose) as shown:
        set_up_process()
        from mixpanel_assets.runs import syncs

        stream = syncs.stream_named(name)
        config = syncs.checked_config(stream, given)
        at_a_time = syncs.workers_for(stream, workers) if parallel else 1
        return syncs.sync(stream, config, at_a_time, shown, days=days, log_level=log_level(verbose))


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
