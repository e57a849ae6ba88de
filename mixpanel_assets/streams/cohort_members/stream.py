"""Members of cohorts as a stream: their names and their table.

Source: Mixpanel's Query API (`POST {query}/cohorts/list`, then `POST {query}/engage` with `filter_by_cohort`).
"""

from mixpanel_assets.storage.columns import Column
from mixpanel_assets.streams.cohort_members.fetch import fetch_page
from mixpanel_assets.streams.cohort_members.query import CohortMembersQuery
from mixpanel_assets.streams.snapshot.stream import SnapshotStream

COHORT_MEMBERS_PAGES = SnapshotStream(
    name="cohort_members",
    part=Column("cohort_id", "VARCHAR", "The cohort's id, as in mixpanel.cohorts.", nullable=False),
    key=Column("distinct_id", "VARCHAR", "The id of one of its members.", nullable=False),
    content=None,
    query=CohortMembersQuery,
    fetch_page=fetch_page,
    missing_table="missing_cohort_members",
    changes_table="cohort_membership_changes",
)
