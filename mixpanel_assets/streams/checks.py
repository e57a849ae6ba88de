"""How the asset checks of every stream are told, and what a failed one means for the run."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import dagster as dg

from mixpanel_assets.errors import IncompleteSyncError
from mixpanel_assets.streams.failures import OneLineFailure

# A run may bring years of days, and several assets; those of one come together.
_MOST_MATERIALIZATIONS = 200


def tell(
    context: dg.AssetCheckExecutionContext, specs: Iterable[dg.AssetCheckSpec], results: Iterable[dg.AssetCheckResult]
) -> Iterator[dg.AssetCheckResult]:
    """The results that were asked for; if a blocking check failed, the step ends with what it says.

    Raises:
        OneLineFailure: one did. Dagster itself would only name the check, in a stack trace.
    """
    chosen = {key.name for key in context.selected_asset_check_keys}
    told = [result for result in results if result.check_name in chosen]
    yield from told
    blocking = {spec.name for spec in specs if spec.blocking}
    failed = [result.description or "" for result in told if not result.passed and result.check_name in blocking]
    if failed:
        raise OneLineFailure("; ".join(failed), IncompleteSyncError.__name__)


def warning(name: str, words: str, metadata: Mapping[str, Any] | None = None, *, passed: bool) -> dg.AssetCheckResult:
    """The result of a check that fails no run."""
    return dg.AssetCheckResult(
        passed=passed,
        check_name=name,
        severity=dg.AssetCheckSeverity.WARN,
        description=words,
        metadata=metadata,
    )


def judged_sync(context: dg.AssetCheckExecutionContext, asset: dg.AssetKey) -> dg.EventLogEntry | None:
    """The materialization of this run's sync; else, for a check that runs alone, of the last one.

    Not always the last one: another run may have stored meanwhile, and must not vouch for this one.
    """
    own = context.instance.get_records_for_run(
        context.run.run_id,
        of_type=dg.DagsterEventType.ASSET_MATERIALIZATION,
        limit=_MOST_MATERIALIZATIONS,
        ascending=False,
    )
    events: list[dg.EventLogEntry] = [each.event_log_entry for each in own.records if each.asset_key == asset]
    return events[0] if events else context.instance.get_latest_materialization_event(asset)
