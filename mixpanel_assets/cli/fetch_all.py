"""`mp fetch all`: one stream after the other, where one that fails costs only itself."""
# ruff: noqa: FBT002 - to Typer, a flag is a boolean parameter with a default

from collections.abc import Mapping
from typing import Any

from mixpanel_assets.cli.day_options import FromDate, LastDays, ToDate, days_or_last_week
from mixpanel_assets.cli.output import Format, FormatOption, print_result, print_rows, say, warn
from mixpanel_assets.cli.sync_command import (
    NoProgress,
    OnQuota,
    Parallel,
    Quota,
    Verbose,
    check_settings,
    sync_shown,
)
from mixpanel_assets.errors import AuthenticationError, Cancelled, ConfigurationError, MixpanelAssetsError
from mixpanel_assets.process_setup import set_up_process


def fetch_all(
    from_date: FromDate = None,
    to_date: ToDate = None,
    last: LastDays = None,
    parallel: Parallel = False,
    on_quota: Quota = OnQuota.stop,
    output: FormatOption = Format.json,
    no_progress: NoProgress = False,
    verbose: Verbose = 0,
) -> int:
    """Copy all of it, one after the other; of events the last week, or these days. What fails costs only itself."""
    days = days_or_last_week(from_date, to_date, last)
    check_settings(parallel=parallel, workers=None)
    set_up_process()
    from mixpanel_assets.streams.all import STREAMS

    shown = {"no_progress": no_progress, "verbose": verbose}
    results: dict[str, Any] = {}
    # Asked of all before the first request: a setting that cannot be read would end it amid the streams.
    parts = {stream.name: stream.config.parts() for stream in STREAMS}
    for stream in STREAMS:
        if parts[stream.name] == 0:
            say(f"{stream.name}: none is named, so none is fetched")
            continue
        given: dict[str, Any] = {"on_quota": on_quota.value}
        units = "pages"
        if stream.missing_pages is None:
            given["days"], units = days, "chunks"
        try:
            synced = sync_shown(stream.name, given, shown, units=units, parallel=parallel)
        except (AuthenticationError, ConfigurationError, Cancelled):
            raise
        except MixpanelAssetsError as error:
            say(f"Error: {stream.name}: {error}")
            results[stream.name] = {"error": str(error), "has_failures": True}
        else:
            results[stream.name] = {**synced.sequential.to_dict(), "has_failures": bool(synced.problems)}
            for problem in synced.problems:
                warn(f"{stream.name}: {problem}")
    if output is Format.json:
        print_result(results, output)
    else:
        print_rows("stream", {name: _row(result) for name, result in results.items()})
    return 1 if any(result["has_failures"] for result in results.values()) else 0


def _row(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """A stream as a row of the table."""
    named = {name: result.get(name) for name in ("table", "rows", "duration_seconds")}
    return {
        **named,
        "all came": "no" if result["has_failures"] else "yes",
        "days": " to ".join(result.get("date_range") or ()) or None,
        "error": result.get("error"),
    }
