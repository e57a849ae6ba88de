"""`mixpanel/cohort_members`, as a stream."""

from pydantic import Field

from mixpanel_assets.pools import ENGAGE_POOL
from mixpanel_assets.settings import ENVIRONMENT, Variables
from mixpanel_assets.streams.cohort_members.query import CohortMembersQuery
from mixpanel_assets.streams.cohort_members.stream import COHORT_MEMBERS_PAGES
from mixpanel_assets.streams.settings import PropertiesConfig
from mixpanel_assets.streams.snapshot.assets import as_stream
from mixpanel_assets.streams.snapshot.settings import SnapshotConfig


class CohortMembersConfig(SnapshotConfig, PropertiesConfig):
    """Settings of one sync of cohorts' members. Of the properties' lists only a hash of $distinct_id changes anything:
    no property is stored."""

    cohort_ids: list[int] | None = Field(default=None, description="Only cohorts of these numbers.")
    cohort_names: list[str] | None = Field(default=None, description="Only cohorts of these names.")
    include_all_users: bool = Field(
        default=True, description="Also members that have no profile; false: only those that mixpanel/profiles has."
    )
    page_size: int | None = Field(default=None, description="Members per page wished for; Mixpanel decides.")

    def asked(self, variables: Variables = ENVIRONMENT) -> CohortMembersQuery:
        return CohortMembersQuery(
            cohort_ids=None if self.cohort_ids is None else tuple(self.cohort_ids),
            cohort_names=None if self.cohort_names is None else tuple(self.cohort_names),
            include_all_users=self.include_all_users,
            page_size=self.page_size,
            kept=self.kept(variables),
        )


COHORT_MEMBERS = as_stream(
    COHORT_MEMBERS_PAGES,
    CohortMembersConfig,
    pool=ENGAGE_POOL,
    singular="cohort_member",
    description=(
        "One row per cohort and member, as of the last sync: the list of cohorts, and one page for each that is not "
        "empty, each a request counted against the hour. A cohort that fails costs only itself: its stored members "
        "stay, and the job retry_failed_cohort_member_pages fetches it alone. Who joined and who left since the sync "
        "before stands in mixpanel.cohort_membership_changes."
    ),
)
