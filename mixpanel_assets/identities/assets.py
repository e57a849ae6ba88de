"""`mixpanel/identities`: who is who, by what is stored. It fetches nothing."""

import dagster as dg
from pydantic import Field

from mixpanel_assets.identities.publish import COLUMNS, VIEW, IdentitiesOrder
from mixpanel_assets.io_manager_keys import WAREHOUSE
from mixpanel_assets.projects import CopiedProject
from mixpanel_assets.properties.catalogue import MEMORY_MB
from mixpanel_assets.properties.sources import EVENTS, PROFILES
from mixpanel_assets.reports import table_schemas

# Whoever has materialized it once has it brought up to date after each sync; for others it costs nothing.
_AFTER_SYNC = (
    dg.AutomationCondition.any_deps_updated().since_last_handled()
    & ~dg.AutomationCondition.missing()
    & ~dg.AutomationCondition.any_deps_in_progress()
    & ~dg.AutomationCondition.in_progress()
).with_label("after_sync_once_made")


class IdentitiesConfig(dg.Config):
    """Settings of one update."""

    memory_mb: int = Field(default=MEMORY_MB, ge=100, description="MB that DuckDB may use.")


def identities_asset(project: CopiedProject) -> dg.AssetsDefinition:
    """That of a project."""

    @dg.asset(
        key=project.key(VIEW),
        deps=[project.key(EVENTS.table), project.key(PROFILES.table)],
        io_manager_key=project.called(WAREHOUSE),
        group_name=project.group,
        kinds={"duckdb"},
        tags={"personal_data": "true"},
        metadata={
            "dagster/table_name": f"{project.schema}.{VIEW}",
            "dagster/column_schema": table_schemas.schema(COLUMNS),
        },
        automation_condition=_AFTER_SYNC,
        description=(
            "For projects with merged identities: each distinct_id of the events with the one that Mixpanel goes by "
            "today, by what the stored events and profiles say. Only days that changed are read again. Once it was "
            "materialized it follows each sync."
        ),
    )
    def identities(config: IdentitiesConfig) -> IdentitiesOrder:
        """Order the table and the view."""
        return IdentitiesOrder(config.memory_mb, project.schema)

    return identities
