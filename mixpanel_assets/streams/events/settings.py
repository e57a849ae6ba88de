"""What can be chosen for a sync of events."""

from pydantic import Field

from mixpanel_assets import settings
from mixpanel_assets.errors import ConfigurationError
from mixpanel_assets.settings import ENVIRONMENT, Variables
from mixpanel_assets.streams.budgets import check_choice
from mixpanel_assets.streams.events.query import EventsQuery
from mixpanel_assets.streams.settings import PropertiesConfig, check_fraction


class EventsConfig(PropertiesConfig):
    """Settings of one events sync. The days are the partitions that are materialized."""

    chunk_days: int | None = Field(
        default=None,
        description=(
            "Days per request, 1 to 100 (default: 7, or as many as make ten requests of the range); with a limit all "
            "days are one request."
        ),
    )
    events: list[str] | None = Field(default=None, description="Only events of these names (default: all).")
    where: str | None = Field(default=None, description='Filter expression, e.g. properties["plan"] == "pro".')
    limit: int | None = Field(
        default=None,
        description=(
            "A sample: at most so many events, 1 to 100,000, which ones Mixpanel decides. They take the place of those "
            "in events_sample; events and its days stay as they are, and none becomes materialized."
        ),
    )
    times: str | None = Field(
        default=None,
        description=(
            "What `time` of the events is: utc, or project for the wall clock of MP_TIMEZONE, as in projects made "
            "before 2023 (default: MP_EVENT_TIMES, or utc). Days stored before a change are to be synced again."
        ),
    )
    max_removed_fraction: float = Field(
        default=0.5,
        description="Refuse the answer for a day that is over if it lacks a larger share of its stored rows (0 to 1).",
    )
    retry_failed_ranges: bool = Field(
        default=False,
        description=(
            "Fetch only days that failed earlier, of those chosen or, with none chosen, all; each with the filters of "
            "the sync that failed, and without the properties that either sync excludes."
        ),
    )

    def query(self, variables: Variables = ENVIRONMENT) -> EventsQuery:
        check_choice(self.on_quota)
        check_fraction(self.max_removed_fraction)
        query = EventsQuery(
            None if self.events is None else tuple(self.events),
            self.where,
            self.kept(variables),
            limit=self.limit,
        )
        if self.limit is not None and self.retry_failed_ranges:
            raise ConfigurationError("retry_failed_ranges fetches what is missing as it was asked for: leave out limit")
        query.check()
        self.zone(variables)
        return query

    def zone(self, variables: Variables = ENVIRONMENT) -> str | None:
        """The zone whose wall clock `time` shows; None: UTC's.

        Raises:
            ConfigurationError: the setting, or the environment's, is out of range.
        """
        if self.times is None:
            times = settings.event_times(variables)
        else:
            times = settings.checked_event_times("times", self.times)
        return settings.timezone(variables).key if times == "project" else None
