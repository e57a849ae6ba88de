"""Asset checks of events: whether the stored days can be trusted.

They compare the table with `event_days`, what each load said of its days, and with what Dagster calls materialized;
they fetch nothing. A failed check fails the run, after the rows were stored.
"""

import statistics
from collections.abc import Collection, Iterator, Mapping
from datetime import date

import dagster as dg

from mixpanel_assets import partitions
from mixpanel_assets.projects import CopiedProject
from mixpanel_assets.resources import ProjectResources
from mixpanel_assets.streams.checks import judged_sync, tell, warning
from mixpanel_assets.streams.events import reports, stored
from mixpanel_assets.streams.events.graph import TABLE
from mixpanel_assets.streams.events.stored import StoredDay
from mixpanel_assets.streams.failures import one_line_errors
from mixpanel_assets.streams.owed import refuse_other_number

# Weekends of an office product have a third of the events of its working days.
LEAST_SHARE = 0.25
COMPARED_DAYS = 7
_MOST_DAYS_NAMED = 20

UNIQUE, WHOLE, INSIDE = "event_keys_unique", "event_days_whole", "events_inside_their_days"
ACCEPTED, FRESH, NOT_FEWER = "events_accepted", "events_fresh", "events_not_fewer"
# By name: what it says, and whether the run fails without it.
_SAID = {
    UNIQUE: ("No two stored events of these days share a key.", True),
    WHOLE: ("Every materialized day was loaded, and the table holds as many rows of it as its load stored.", True),
    INSIDE: ("Every stored event lies in a day that was loaded.", True),
    ACCEPTED: ("Every row that came for these days is stored, none lies in rejected_rows.", True),
    FRESH: ("Today or yesterday is loaded; if not, events are missing at the end (a warning).", False),
    NOT_FEWER: (
        f"The last day that is over has no less than {LEAST_SHARE:.0%} of the events of the {COMPARED_DAYS} loaded "
        "days before it (a warning).",
        False,
    ),
}


def events_checks(project: CopiedProject) -> dg.AssetChecksDefinition:
    """The checks of a project's events; if a blocking one fails, the step ends with what it says."""
    asset = project.key(TABLE)
    specs = [
        dg.AssetCheckSpec(name, asset=asset, blocking=blocking, description=description)
        for name, (description, blocking) in _SAID.items()
    ]

    # One step for all of them: each step opens the file, a quarter of a second.
    @dg.multi_asset_check(
        name=project.called("check_events"),
        specs=specs,
        can_subset=True,
        required_resource_keys=project.resource_keys("warehouse"),
    )
    def check(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        yield from tell(context, specs, _results(context, project))

    return check


def _results(context: dg.AssetCheckExecutionContext, project: CopiedProject) -> list[dg.AssetCheckResult]:
    warehouse = ProjectResources(context.resources, project).warehouse
    with one_line_errors():
        today = partitions.today(project.variables)
        event = judged_sync(context, project.key(TABLE))
        with (opened := warehouse.open(context.log, project.schema)).reading() as connection:
            refuse_other_number(context.instance, event, connection, opened)
            first, last = _days(context)
            repeated = stored.repeated_keys(connection, first, last)
            differing = stored.differing_days(connection)
            outside = stored.rows_outside_their_days(connection)
            loaded = stored.stored(connection).days
    absent = context.instance.get_materialized_partitions(project.key(TABLE)) - loaded.keys()
    return [
        _unique(repeated),
        _whole(sorted(absent.union(differing))),
        _inside(outside),
        _accepted({day: loaded[day] for day in loaded if (first or day) <= day <= (last or day)}, project.schema),
        _fresh(loaded, today),
        _not_fewer(loaded, today),
    ]


def _unique(repeated: int) -> dg.AssetCheckResult:
    words = f"{repeated} rows repeat the key of another row" if repeated else "every key is there once"
    return dg.AssetCheckResult(
        passed=not repeated, check_name=UNIQUE, description=words, metadata={"repeated_rows": repeated}
    )


def _whole(wrong: list[str]) -> dg.AssetCheckResult:
    words = f"{len(wrong)} days are not as they were loaded: {_named(wrong)}" if wrong else "all days are whole"
    metadata = {"days": dg.MetadataValue.json(wrong[:_MOST_DAYS_NAMED])}
    return dg.AssetCheckResult(passed=not wrong, check_name=WHOLE, description=words, metadata=metadata)


def _inside(outside: int) -> dg.AssetCheckResult:
    words = f"{outside} rows lie in no day that was loaded" if outside else "every row lies in its day"
    return dg.AssetCheckResult(passed=not outside, check_name=INSIDE, description=words, metadata={"rows": outside})


def _accepted(loaded: Mapping[str, StoredDay], schema: str) -> dg.AssetCheckResult:
    rows = sum(day.rejected for day in loaded.values())
    words = reports.rejected_words(rows, schema) if rows else "every row that came is stored"
    return dg.AssetCheckResult(
        passed=not rows, check_name=ACCEPTED, description=words, metadata={"rejected_rows": rows}
    )


def _fresh(loaded: Collection[str], today: str) -> dg.AssetCheckResult:
    newest = max(loaded, default=None)
    if newest is None:
        return warning(FRESH, "no day was ever loaded", passed=False)
    behind = (date.fromisoformat(today) - date.fromisoformat(newest)).days
    return warning(FRESH, f"the newest loaded day is {newest}, {behind} days ago", passed=behind <= 1)


def _not_fewer(loaded: Mapping[str, StoredDay], today: str) -> dg.AssetCheckResult:
    *before, last = [None, *(day for day in sorted(loaded) if day < today)][-COMPARED_DAYS - 1 :]
    compared = [loaded[day].rows for day in before if day is not None]
    if last is None or not compared:
        return warning(NOT_FEWER, "no days to compare yet", passed=True)
    usual = statistics.median(compared)
    words = f"{loaded[last].rows} events on {last}; the {len(compared)} loaded days before have {usual:g} (median)"
    return warning(NOT_FEWER, words, passed=loaded[last].rows >= usual * LEAST_SHARE)


def _days(context: dg.AssetCheckExecutionContext) -> tuple[str | None, str | None]:
    """The days of this run; no bounds in a run without partitions."""
    if not (context.has_partition_key or context.has_partition_key_range):
        return None, None
    return context.partition_key_range.start, context.partition_key_range.end


def _named(days: list[str]) -> str:
    more = len(days) - _MOST_DAYS_NAMED
    return ", ".join(days[:_MOST_DAYS_NAMED]) + (f" and {more} more" if more > 0 else "")
