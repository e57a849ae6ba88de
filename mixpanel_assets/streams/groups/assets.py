"""`mixpanel/groups`, as a stream."""

from collections.abc import Mapping

from pydantic import Field

from mixpanel_assets import settings
from mixpanel_assets.pools import ENGAGE_POOL
from mixpanel_assets.settings import ENVIRONMENT, Variables
from mixpanel_assets.streams.groups.query import GroupsQuery
from mixpanel_assets.streams.groups.stream import GROUP_PAGES
from mixpanel_assets.streams.settings import PropertiesConfig
from mixpanel_assets.streams.snapshot.assets import as_stream
from mixpanel_assets.streams.snapshot.settings import SnapshotConfig


class GroupsConfig(SnapshotConfig, PropertiesConfig):
    """Settings of one sync of groups."""

    groups: dict[str, str] | None = Field(
        default=None,
        description=(
            "Which kinds of groups: what each is called, and its data_group_id in quotes, as "
            '{company: "-1405123841946871899"}; default: MP_GROUPS.'
        ),
    )
    where: str | None = Field(default=None, description='Filter expression, e.g. properties["seats"] > 10.')
    output_properties: list[str] | None = Field(default=None, description="Only these properties (default: all).")
    page_size: int | None = Field(default=None, description="Groups per page wished for; Mixpanel decides.")

    @classmethod
    def parts(cls, variables: Variables = ENVIRONMENT) -> int:
        return len(settings.groups(variables))

    def nothing_named(self, variables: Variables = ENVIRONMENT) -> str | None:
        if self._named(variables) or self.retry_failed_pages:
            return None
        return f"no group is named: set {variables.called('MP_GROUPS')}, or groups"

    def _named(self, variables: Variables) -> Mapping[str, str]:
        return settings.groups(variables) if self.groups is None else self.groups

    def asked(self, variables: Variables = ENVIRONMENT) -> GroupsQuery:
        return GroupsQuery(
            groups=tuple(self._named(variables).items()),
            where=self.where,
            output_properties=None if self.output_properties is None else tuple(self.output_properties),
            page_size=self.page_size,
            kept=self.kept(variables),
        )


GROUPS = as_stream(
    GROUP_PAGES,
    GroupsConfig,
    pool=ENGAGE_POOL,
    singular="group",
    description=(
        "One row per group of the kinds that are named, such as companies, as of the last sync: a request for each "
        "kind counts against the hour. A kind that fails costs only itself: its stored groups stay, and the job "
        "retry_failed_group_pages fetches it alone. Groups deleted in Mixpanel go; those of a kind that is not named "
        "stay as they are."
    ),
)
