"""Asset checks: whether what is stored can be trusted.

They look at the table and at what the sync said of itself; they fetch nothing.
"""

from typing import Any

import dagster as dg

from mixpanel_assets.assets.profiles import PROFILES_KEY
from mixpanel_assets.profiles_table import TABLE as PROFILES_TABLE
from mixpanel_assets.resources import WarehouseResource
from mixpanel_assets.warehouse import count


@dg.asset_check(
    asset=PROFILES_KEY,
    blocking=True,
    description="Every profile that Mixpanel reported is stored; if not, the run fails, after storing what came.",
)
def profiles_complete(context: dg.AssetCheckExecutionContext, warehouse: WarehouseResource) -> dg.AssetCheckResult:
    said = _said(context)
    if said is None:
        return dg.AssetCheckResult(passed=False, description="mixpanel/profiles was never synced")
    with warehouse.open(context.log).reading() as connection:
        stored = count(connection, f"select count(*) from {PROFILES_TABLE}")
    missing = _missing(said, stored)
    return dg.AssetCheckResult(
        passed=not missing,
        description="; ".join(missing) or f"all {stored} profiles are stored",
        metadata={
            "stored": stored,
            "failed_page_indices": dg.MetadataValue.json(said.get("failed_page_indices") or []),
        },
    )


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
    reported = said.get("total_reported")
    served = stored + said.get("duplicate_profiles", 0)
    if not words and reported is not None and served < reported:
        words.append(f"{reported} profiles were reported, {served} came")
    if stored != said.get("dagster/row_count"):
        words.append(f"the table holds {stored} rows, the sync stored {said.get('dagster/row_count')}")
    return words
