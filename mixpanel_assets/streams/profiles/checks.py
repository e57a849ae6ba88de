"""Asset checks: whether what is stored can be trusted.

They look at the table and at what the sync said of itself; they fetch nothing.
"""

import statistics
from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg
import duckdb

from mixpanel_assets.errors import IncompleteSyncError
from mixpanel_assets.resources import WarehouseResource
from mixpanel_assets.storage.warehouse import count
from mixpanel_assets.streams.failures import OneLineFailure, one_line_errors
from mixpanel_assets.streams.profiles.assets import PROFILES_KEY
from mixpanel_assets.streams.profiles.load import TABLE as PROFILES_TABLE

FRESH_HOURS = 24
# A larger drop at once is refused before it is stored (max_removed_fraction); this sees those that creep.
MOST_LOST = 0.2
COMPARED_SYNCS = 5
_REPEATED_IDS = f"(select 1 from {PROFILES_TABLE} group by data_group_id, distinct_id having count(*) > 1)"

COMPLETE = dg.AssetCheckSpec(
    "profiles_complete",
    asset=PROFILES_KEY,
    blocking=True,
    description=(
        "Every profile that Mixpanel reported is stored, but for the few that may be deleted meanwhile "
        "(max_missing_fraction); if not, the run fails, after storing what came."
    ),
)
UNIQUE = dg.AssetCheckSpec(
    "profiles_unique", asset=PROFILES_KEY, description="No distinct_id is stored twice, of users or of one group."
)
FRESH = dg.AssetCheckSpec(
    "profiles_fresh",
    asset=PROFILES_KEY,
    description=(
        f"No row is older than {FRESH_HOURS} hours, as those of a page become that fails in every sync (a warning)."
    ),
)
NOT_FEWER = dg.AssetCheckSpec(
    "profiles_not_fewer",
    asset=PROFILES_KEY,
    description=f"No more than {MOST_LOST:.0%} fewer rows than after the last {COMPARED_SYNCS} syncs (a warning).",
)


# One step for all of them: each step would cost a sync a tenth of a second.
@dg.multi_asset_check(name="check_profiles", specs=[UNIQUE, FRESH, NOT_FEWER, COMPLETE], can_subset=True)
def profiles_checks(
    context: dg.AssetCheckExecutionContext, warehouse: WarehouseResource
) -> Iterator[dg.AssetCheckResult]:
    """The checks of `mixpanel/profiles`; if it is incomplete, the step ends with what that check says."""
    said = _said(context)
    with one_line_errors(), warehouse.open(context.log).reading() as connection:
        stored = count(connection, f"select count(*) from {PROFILES_TABLE}")
        twice = count(connection, f"select count(*) from {_REPEATED_IDS}")
        oldest_hours = _oldest_hours(connection)
    earlier = _earlier_counts(context, said)
    results = [_complete(said, stored), _unique(twice), _fresh(oldest_hours), _not_fewer(stored, earlier)]
    chosen = {key.name for key in context.selected_asset_check_keys}
    yield from (result for result in results if result.check_name in chosen)
    complete = results[0]
    if COMPLETE.name in chosen and not complete.passed:
        # Dagster itself would only name the check, in a stack trace.
        raise OneLineFailure(complete.description or "", IncompleteSyncError.__name__)


def _complete(said: dict[str, Any] | None, stored: int) -> dg.AssetCheckResult:
    missing = ["mixpanel/profiles was never synced"] if said is None else _missing(said, stored)
    failed = (said or {}).get("failed_page_indices") or []
    words = "; ".join(missing) or _all_stored(said or {}, stored)
    return dg.AssetCheckResult(
        passed=not missing,
        check_name=COMPLETE.name,
        description=f"{words}; job retry_failed_profile_pages fetches them again" if failed else words,
        metadata={"stored": stored, "failed_page_indices": dg.MetadataValue.json(failed)},
    )


def _all_stored(said: dict[str, Any], stored: int) -> str:
    missing = said.get("missing_profiles")
    if not missing:
        return f"all {stored} profiles are stored"
    return f"{stored} profiles are stored; {missing} did not come, as those deleted meanwhile do not; none was removed"


def _unique(twice: int) -> dg.AssetCheckResult:
    words = f"{twice} distinct_ids are stored more than once" if twice else "every distinct_id is there once"
    return dg.AssetCheckResult(
        passed=not twice, check_name=UNIQUE.name, description=words, metadata={"repeated_ids": twice}
    )


def _fresh(oldest_hours: float) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        passed=oldest_hours <= FRESH_HOURS,
        severity=dg.AssetCheckSeverity.WARN,
        check_name=FRESH.name,
        description=f"the oldest row was asked for {oldest_hours:.1f} hours ago",
        metadata={"oldest_hours": round(oldest_hours, 1)},
    )


def _not_fewer(stored: int, earlier: Sequence[int]) -> dg.AssetCheckResult:
    if not earlier:
        return dg.AssetCheckResult(
            passed=True, check_name=NOT_FEWER.name, description="no earlier sync to compare with"
        )
    usual = statistics.median(earlier)
    return dg.AssetCheckResult(
        passed=stored >= usual * (1 - MOST_LOST),
        severity=dg.AssetCheckSeverity.WARN,
        check_name=NOT_FEWER.name,
        description=f"{stored} profiles; the {len(earlier)} syncs before left {usual:g} (median)",
        metadata={"stored": stored, "median_before": float(usual)},
    )


def _oldest_hours(connection: duckdb.DuckDBPyConnection) -> float:
    """Hours since the oldest row was asked for; 0 when there is none."""
    query = f"select coalesce(epoch(now()) - epoch(min(synced_at)), 0)::bigint from {PROFILES_TABLE}"
    return max(0, count(connection, query)) / 3600


def _earlier_counts(context: dg.AssetCheckExecutionContext, said: dict[str, Any] | None) -> list[int]:
    """Rows after each of the last syncs before this one that asked for the same."""
    records = context.instance.fetch_materializations(PROFILES_KEY, limit=COMPARED_SYNCS + 1).records
    own = context.run.run_id
    before = [record.event_log_entry for record in records if record.run_id != own]
    metadata = [entry.asset_materialization.metadata for entry in before if entry.asset_materialization]
    values = [{name: value.value for name, value in each.items()} for each in metadata]
    same = [each for each in values if said is not None and each.get("query") == said.get("query")]
    return [int(each["dagster/row_count"]) for each in same if "dagster/row_count" in each][:COMPARED_SYNCS]


def _said(context: dg.AssetCheckExecutionContext) -> dict[str, Any] | None:
    """What this run's sync said of itself; else, for a check that runs alone, what the last one said.

    Not always the last one: another run may have stored meanwhile, and must not vouch for this one.
    """
    own = context.instance.get_records_for_run(context.run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    events = [record.event_log_entry for record in own.records if record.asset_key == PROFILES_KEY]
    event = events[-1] if events else context.instance.get_latest_materialization_event(PROFILES_KEY)
    if event is None or event.asset_materialization is None:
        return None
    return {name: value.value for name, value in event.asset_materialization.metadata.items()}


def _missing(said: dict[str, Any], stored: int) -> list[str]:
    """What the last sync lacks, in words; empty when nothing."""
    words = []
    failed = said.get("failed_page_indices") or []
    if failed:
        pages = ", ".join(str(page) for page in failed)
        words.append(f"{len(failed)} of {said['total_pages']} pages are missing: {pages}")
    if said.get("rejected_rows"):
        words.append(f"{said['rejected_rows']} rows are no profiles and lie in mixpanel.rejected_rows")
    reported, came = said.get("total_reported"), said["fetched_rows"] - said["duplicate_profiles"]
    if not words and reported is not None and came + said.get("tolerated_missing_profiles", 0) < reported:
        words.append(f"{reported} profiles were reported, {came} different ones came, none was removed: sync again")
    if stored != said.get("dagster/row_count"):
        words.append(f"the table holds {stored} rows, the sync stored {said.get('dagster/row_count')}")
    return words
