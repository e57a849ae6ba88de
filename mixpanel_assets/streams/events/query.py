"""Which events: a query of the raw export as its parameters."""

import json
from dataclasses import dataclass

from mixpanel_assets.client.property_filter import NO_FILTER, PropertyFilter
from mixpanel_assets.errors import ConfigurationError

# Mixpanel's.
MAX_LIMIT = 100_000


@dataclass(frozen=True)
class EventsQuery:
    """Which events. None means: all.

    Attributes:
        events: Only events of these names.
        where: Filter expression, such as `properties["plan"] == "pro"`.
        kept: Which of the properties that come are kept.
        source: Whose events, as the client says; None where it was not noted.
        limit: No more than so many of them, of which Mixpanel tells nothing; None: all of them.
    """

    events: tuple[str, ...] | None = None
    where: str | None = None
    kept: PropertyFilter = NO_FILTER
    source: str | None = None
    limit: int | None = None

    def covers(self, other: "EventsQuery") -> bool:
        """Whether an export brings all events that another would bring; which properties are kept is another matter."""
        names = self.events is None or (other.events is not None and {*other.events} <= {*self.events})
        whole = self.limit is None and self.where in (None, other.where)
        return names and whole and other.source in (None, self.source)

    def check(self) -> None:
        """Refuse what Mixpanel would misunderstand or silently ignore.

        Raises:
            ConfigurationError: one line that names the setting.
        """
        if self.where is not None and not self.where.strip():
            raise ConfigurationError("where is empty: leave it out to fetch all events")
        if self.events is not None and not all(name.strip() for name in self.events or ("",)):
            raise ConfigurationError("events must name at least one event, and no empty names")
        if self.limit is not None and not 1 <= self.limit <= MAX_LIMIT:
            raise ConfigurationError(f"limit must be between 1 and {MAX_LIMIT:,}, not {self.limit:,}")
        self.kept.check_for_events()
        if self.where is not None:
            self.kept.check_for_filtered_events()

    def params(self) -> dict[str, str]:
        """The query as URL parameters."""
        params = {}
        if self.events is not None:
            params["event"] = json.dumps(list(self.events))
        if self.where is not None:
            params["where"] = self.where
        if self.limit is not None:
            params["limit"] = str(self.limit)
        return params
