"""Asset checks of the catalogues: whether properties are what they were, for those whose queries stand on them."""

from collections.abc import Collection
from typing import Any

import dagster as dg

from mixpanel_assets.projects import CopiedProject
from mixpanel_assets.properties.sources import SOURCES, Source
from mixpanel_assets.reports import markdown


def _steady(asset: dg.AssetKey, name: str) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=asset,
        name=name,
        description="No property changed its type or went away since the update before (a warning).",
    )
    def check(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        said = _said(context.instance, asset)
        if said is None:
            return dg.AssetCheckResult(passed=False, description=f"{asset.to_user_string()} was never materialized")
        words = [
            f"{markdown.code(each['property'])}: {each['from']} became {each['to']}"
            for each in said["retyped_properties"] or []
        ]
        # The UI reads a description as Markdown.
        words += [f"{markdown.code(gone)}: gone" for gone in said["gone_properties"] or []]
        return dg.AssetCheckResult(
            passed=not words,
            severity=dg.AssetCheckSeverity.WARN,
            description="; ".join(words) or "all properties are what they were",
        )

    return check


def property_checks(project: CopiedProject, sources: Collection[Source] = SOURCES) -> list[dg.AssetChecksDefinition]:
    """Those of a project that has these sources."""
    return [_steady(project.key(source.catalogue), f"{source.catalogue}_steady") for source in sources]


def _said(instance: dg.DagsterInstance, asset: dg.AssetKey) -> dict[str, Any] | None:
    """What the last materialization said."""
    event = instance.get_latest_materialization_event(asset)
    if event is None or event.asset_materialization is None:
        return None
    return {name: value.value for name, value in event.asset_materialization.metadata.items()}
