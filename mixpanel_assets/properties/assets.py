"""`mixpanel/profile_properties`, and its like for events and groups: catalogues of properties, with typed views.

They fetch nothing: what is in the tables is counted where it lies, when the IO manager is handed the order. What is
counted, and how columns get names and types, is properties/'s.
"""

from collections.abc import Callable, Collection

import dagster as dg
from pydantic import Field

from mixpanel_assets.io_manager_keys import WAREHOUSE
from mixpanel_assets.projects import THE_ENVIRONMENTS, CopiedProject
from mixpanel_assets.properties.catalogue import COLUMNS, MEMORY_MB
from mixpanel_assets.properties.publish import CatalogueOrder
from mixpanel_assets.properties.sources import EVENTS, GROUPS, PROFILES, SOURCES, Source
from mixpanel_assets.reports import table_schemas
from mixpanel_assets.storage.columns import Column

PROFILE_PROPERTIES_KEY = THE_ENVIRONMENTS.key(PROFILES.catalogue)
EVENT_PROPERTIES_KEY = THE_ENVIRONMENTS.key(EVENTS.catalogue)

_GROUP_KEY = Column("group_key", "VARCHAR", "The kind of group.", nullable=False)
_UNFOLD = Field(
    default=None,
    description="Nested values in the views as STRUCT (true) or JSON (false) from now on; default: as before, or JSON.",
)
_MEMORY = Field(
    default=MEMORY_MB, ge=100, description="MB that DuckDB may use; more where rows hold 100 kB of JSON on average."
)
_TYPED_TABLE = Field(
    default=None,
    description=(
        "Keep what the view shows, without the JSON, as a table too (true) from now on, for queries that read a few "
        "columns of many rows; or no longer (false); default: as before, or none."
    ),
)
# `eager()` would wait until every day of events is there; a sync of a few days is worth a new catalogue too.
_UPDATED = dg.AutomationCondition.any_deps_updated().since_last_handled()
# What was synced before the sensor's first look is no update to it. Asked for once: a failure is not asked for again.
_NEVER_MADE = dg.AutomationCondition.missing().newly_true().since(
    dg.AutomationCondition.newly_requested() | dg.AutomationCondition.newly_updated()
) & dg.AutomationCondition.any_deps_match(~dg.AutomationCondition.missing())
_AFTER_SYNC = (
    (_UPDATED | _NEVER_MADE) & ~dg.AutomationCondition.any_deps_in_progress() & ~dg.AutomationCondition.in_progress()
).with_label("after_sync")


class ProfilePropertiesConfig(dg.Config):
    """Settings of one update. What is said to hold from now on is remembered."""

    unfold_nested: bool | None = _UNFOLD
    memory_mb: int = _MEMORY
    typed_table: bool | None = _TYPED_TABLE


class EventPropertiesConfig(dg.Config):
    """Settings of one update. What is said to hold from now on is remembered."""

    unfold_nested: bool | None = _UNFOLD
    memory_mb: int = _MEMORY
    typed_table: bool | None = _TYPED_TABLE
    event_views: list[str] = Field(
        default=[],
        description="Events that get a view of their own, events_wide_<name>, from now on; [*]: all.",
    )


class GroupPropertiesConfig(dg.Config):
    """Settings of one update. What is said to hold from now on is remembered."""

    unfold_nested: bool | None = _UNFOLD
    memory_mb: int = _MEMORY


def property_assets(project: CopiedProject, sources: Collection[Source] = SOURCES) -> list[dg.AssetsDefinition]:
    """Those of a project that has these sources."""
    view = f"{project.schema}.{PROFILES.view}"

    @_asset(
        PROFILES,
        project,
        "One row per property of the profiles: exact name, kinds of values, share of profiles, different values, "
        f"examples, and its column in the view {view}, which is brought up to date with it.",
    )
    def profile_properties(config: ProfilePropertiesConfig) -> CatalogueOrder:
        """Order the catalogue and the view of profiles."""
        return CatalogueOrder(PROFILES, (), config.unfold_nested, config.memory_mb, project.schema, config.typed_table)

    view = f"{project.schema}.{EVENTS.view}"

    @_asset(
        EVENTS,
        project,
        "One row per property of the events, over all (event_name is NULL) and for each event name: exact name, kinds "
        f"of values, share of events, different values, examples, and its column in the view {view}, "
        "which is brought up to date with it. Only days that changed are counted again.",
    )
    def event_properties(config: EventPropertiesConfig) -> CatalogueOrder:
        """Order the catalogue and the views of events."""
        views = tuple(config.event_views)
        return CatalogueOrder(EVENTS, views, config.unfold_nested, config.memory_mb, project.schema, config.typed_table)

    @_asset(
        GROUPS,
        project,
        "One row per kind of group and property: exact name, kinds of values, share of groups, different values, "
        f"examples, and its column in the view {project.schema}.{GROUPS.view}_<name of the kind>, which is brought up "
        "to date with it.",
    )
    def group_properties(config: GroupPropertiesConfig) -> CatalogueOrder:
        """Order the catalogue and the views of groups."""
        return CatalogueOrder(GROUPS, (), config.unfold_nested, config.memory_mb, project.schema)

    made = {PROFILES: profile_properties, EVENTS: event_properties, GROUPS: group_properties}
    return [asset for source, asset in made.items() if source in sources]


def _asset(
    source: Source, project: CopiedProject, description: str
) -> Callable[[Callable[..., CatalogueOrder]], dg.AssetsDefinition]:
    return dg.asset(
        key=project.key(source.catalogue),
        deps=[project.key(source.table)],
        io_manager_key=project.called(WAREHOUSE),
        group_name=project.group,
        kinds={"duckdb"},
        tags={"personal_data": "true"},
        metadata={
            "dagster/table_name": f"{project.schema}.{source.catalogue}",
            "dagster/column_schema": table_schemas.schema([_GROUP_KEY, *COLUMNS] if source == GROUPS else COLUMNS),
        },
        automation_condition=_AFTER_SYNC,
        description=description,
    )
