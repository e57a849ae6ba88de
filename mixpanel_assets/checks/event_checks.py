"""Asset checks of `mixpanel/events`: whether the stored days can be trusted.

They compare the table with `event_days`, what each load said of its days, and with what Dagster calls materialized;
they fetch nothing. A failed check fails the run, after the rows were stored.
"""

import statistics
from datetime import date

import dagster as dg

from mixpanel_assets import partitions
from mixpanel_assets.assets.events import EVENTS_KEY
from mixpanel_assets.resources import WarehouseResource
from mixpanel_assets.warehouse import events_table
from mixpanel_assets.warehouse.database import count

# Weekends of an office product have a third of the events of its working days.
LEAST_SHARE = 0.25
COMPARED_DAYS = 7
_MOST_DAYS_NAMED = 20


@dg.asset_check(asset=EVENTS_KEY, blocking=True, description="No two stored events of these days share a key.")
def event_keys_unique(context: dg.AssetCheckExecutionContext, warehouse: WarehouseResource) -> dg.AssetCheckResult:
    first, last = _days(context)
    with warehouse.open(context.log).reading() as connection:
        repeated = events_table.repeated_keys(connection, first, last)
    words = f"{repeated} rows repeat the key of another row" if repeated else "every key is there once"
    return dg.AssetCheckResult(passed=not repeated, description=words, metadata={"repeated_rows": repeated})


@dg.asset_check(
    asset=EVENTS_KEY,
    blocking=True,
    description="Every materialized day was loaded, and the table holds as many rows of it as its load stored.",
)
def event_days_whole(context: dg.AssetCheckExecutionContext, warehouse: WarehouseResource) -> dg.AssetCheckResult:
    materialized = context.instance.get_materialized_partitions(EVENTS_KEY)
    with warehouse.open(context.log).reading() as connection:
        loaded = events_table.stored(connection).days
        differing = events_table.differing_days(connection)
    wrong = sorted(set(differing) | (materialized - set(loaded)))
    words = f"{len(wrong)} days are not as they were loaded: {_named(wrong)}" if wrong else "all days are whole"
    metadata = {"days": dg.MetadataValue.json(wrong[:_MOST_DAYS_NAMED])}
    return dg.AssetCheckResult(passed=not wrong, description=words, metadata=metadata)


@dg.asset_check(asset=EVENTS_KEY, blocking=True, description="Every stored event lies in a day that was loaded.")
def events_inside_their_days(
    context: dg.AssetCheckExecutionContext, warehouse: WarehouseResource
) -> dg.AssetCheckResult:
    with warehouse.open(context.log).reading() as connection:
        outside = count(connection, events_table.ROWS_OUTSIDE_THEIR_DAYS)
    words = f"{outside} rows lie in no day that was loaded" if outside else "every row lies in its day"
    return dg.AssetCheckResult(passed=not outside, description=words, metadata={"rows": outside})


@dg.asset_check(
    asset=EVENTS_KEY, description="Today or yesterday is loaded; if not, events are missing at the end (a warning)."
)
def events_fresh(context: dg.AssetCheckExecutionContext, warehouse: WarehouseResource) -> dg.AssetCheckResult:
    with warehouse.open(context.log).reading() as connection:
        newest = max(events_table.stored(connection).days, default=None)
    if newest is None:
        return _warning(passed=False, words="no day was ever loaded")
    behind = (date.fromisoformat(partitions.today()) - date.fromisoformat(newest)).days
    words = f"the newest loaded day is {newest}, {behind} days ago"
    return _warning(passed=behind <= 1, words=words)


@dg.asset_check(
    asset=EVENTS_KEY,
    description=(
        f"The last day that is over has no less than {LEAST_SHARE:.0%} of the events of the {COMPARED_DAYS} loaded "
        "days before it (a warning)."
    ),
)
def events_not_fewer(context: dg.AssetCheckExecutionContext, warehouse: WarehouseResource) -> dg.AssetCheckResult:
    with warehouse.open(context.log).reading() as connection:
        loaded = events_table.stored(connection).days
    *before, last = [None, *(day for day in sorted(loaded) if day < partitions.today())][-COMPARED_DAYS - 1 :]
    compared = [loaded[day].rows for day in before if day is not None]
    if last is None or not compared:
        return _warning(passed=True, words="no days to compare yet")
    usual = statistics.median(compared)
    words = f"{loaded[last].rows} events on {last}; the {len(compared)} loaded days before have {usual:g} (median)"
    return _warning(passed=loaded[last].rows >= usual * LEAST_SHARE, words=words)


EVENT_CHECKS = (event_keys_unique, event_days_whole, events_inside_their_days, events_fresh, events_not_fewer)


def _warning(*, passed: bool, words: str) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=passed, severity=dg.AssetCheckSeverity.WARN, description=words)


def _days(context: dg.AssetCheckExecutionContext) -> tuple[str | None, str | None]:
    """The days of this run; no bounds in a run without partitions."""
    if not (context.has_partition_key or context.has_partition_key_range):
        return None, None
    return context.partition_key_range.start, context.partition_key_range.end


def _named(days: list[str]) -> str:
    more = len(days) - _MOST_DAYS_NAMED
    return ", ".join(days[:_MOST_DAYS_NAMED]) + (f" and {more} more" if more > 0 else "")
