"""What can be chosen for a sync of profiles."""

from pydantic import Field

from mixpanel_assets.errors import ConfigurationError
from mixpanel_assets.settings import ENVIRONMENT, Variables
from mixpanel_assets.streams.profiles.query import ProfileQuery
from mixpanel_assets.streams.settings import PropertiesConfig
from mixpanel_assets.streams.snapshot.settings import SnapshotConfig
from mixpanel_assets.streams.snapshot.stream import SnapshotQuery

# Hourly syncs have a complete one among them each day, and no row grows older than the check of fresh rows allows.
COMPLETE_AFTER_HOURS = 23.0
MOST_OVERLAP_HOURS = 24 * 30


class ProfilesConfig(SnapshotConfig, PropertiesConfig):
    """Settings of one profiles sync."""

    where: str | None = Field(default=None, description='Filter expression, e.g. properties["plan"] == "pro".')
    cohort_id: int | None = Field(default=None, description="Only members of this cohort.")
    include_all_users: bool | None = Field(
        default=None, description="With cohort_id: also ids that have no profile (default: only real profiles)."
    )
    distinct_ids: list[str] | None = Field(default=None, description="Only profiles of these ids.")
    behaviors: str | None = Field(
        default=None,
        description=(
            'What `where` may count, as JSON: [{"window": "30d", "name": "x", "event_selectors": [{"event": "A"}]}], '
            'for a where such as (behaviors["x"] > 0). Needs as_of_timestamp.'
        ),
    )
    as_of_timestamp: int | None = Field(
        default=None, description="With behaviors: the end of their windows, in seconds since 1970."
    )
    output_properties: list[str] | None = Field(default=None, description="Only these properties (default: all).")
    page_size: int | None = Field(
        default=None, description="Profiles per page wished for; what Mixpanel answers decides (its default: 1000)."
    )
    incremental: bool = Field(
        default=False,
        description=(
            "Ask only for profiles that Mixpanel updated since the last sync, by $last_seen, and remove none; once a "
            "day, and where anything else is asked for than before, a complete sync. No such sync is complete: "
            "deleted profiles, and changes that leave $last_seen as it is, wait for the complete one."
        ),
    )
    overlap_hours: float = Field(
        default=2.0, description="With incremental: how long before the last sync profiles are asked for again."
    )
    history: bool = Field(
        default=False,
        description=(
            "Keep in mixpanel.profile_history what each profile was, from now on, also in later syncs that do not say "
            "so; dropping that table ends it."
        ),
    )
    data_group_id: str | None = Field(
        default=None, description="Was for group profiles, which are mixpanel/groups now."
    )

    @property
    def incremental_hours(self) -> tuple[float, float] | None:
        return (self.overlap_hours, COMPLETE_AFTER_HOURS) if self.incremental else None

    @property
    def keep_history(self) -> bool:
        return self.history

    def query(self, variables: Variables = ENVIRONMENT) -> SnapshotQuery:
        if self.incremental and any(
            each is not None for each in (self.distinct_ids, self.cohort_id, self.behaviors, self.output_properties)
        ):
            raise ConfigurationError(
                "incremental asks for profiles by $last_seen: leave out distinct_ids, cohort_id, behaviors and "
                "output_properties"
            )
        if not 0 <= self.overlap_hours <= MOST_OVERLAP_HOURS:
            raise ConfigurationError(
                f"overlap_hours must be between 0 and {MOST_OVERLAP_HOURS}, not {self.overlap_hours}"
            )
        return super().query(variables)

    def asked(self, variables: Variables = ENVIRONMENT) -> ProfileQuery:
        return ProfileQuery(
            where=self.where,
            cohort_id=self.cohort_id,
            include_all_users=self.include_all_users,
            distinct_ids=None if self.distinct_ids is None else tuple(self.distinct_ids),
            behaviors=self.behaviors,
            as_of_timestamp=self.as_of_timestamp,
            output_properties=None if self.output_properties is None else tuple(self.output_properties),
            page_size=self.page_size,
            data_group_id=self.data_group_id,
            kept=self.kept(variables),
        )
