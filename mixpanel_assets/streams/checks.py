"""How the asset checks of every stream are told, and what a failed one means for the run."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import dagster as dg

from mixpanel_assets.errors import IncompleteSyncError
from mixpanel_assets.streams.failures import OneLineFailure


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
