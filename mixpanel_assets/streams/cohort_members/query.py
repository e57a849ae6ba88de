"""Which cohorts, and which of their members: what is asked for, as settings."""

from dataclasses import dataclass

from mixpanel_assets.client.property_filter import NO_FILTER, PropertyFilter
from mixpanel_assets.errors import ConfigurationError
from mixpanel_assets.streams.snapshot.stream import SnapshotQuery, check_page_size


@dataclass(frozen=True)
class CohortMembersQuery(SnapshotQuery):
    """Which cohorts' members. Without ids and names: those of all cohorts.

    Attributes:
        cohort_ids: Cohorts by number.
        cohort_names: Cohorts by name, all of a name that several have.
        include_all_users: Also members that have no profile.
        page_size: Members per page wished for; the server's answer decides.
        kept: Whether the id is hashed; properties are never kept.
        source: Whose cohorts, as the client says; None where it was not noted.
    """

    cohort_ids: tuple[int, ...] | None = None
    cohort_names: tuple[str, ...] | None = None
    include_all_users: bool = True
    page_size: int | None = None
    kept: PropertyFilter = NO_FILTER
    source: str | None = None

    def check(self) -> None:
        """Refuse what names no cohort.

        Raises:
            ConfigurationError: one line that names the setting.
        """
        super().check()
        if self.cohort_ids is not None and not all(number > 0 for number in self.cohort_ids or (0,)):
            raise ConfigurationError("cohort_ids must name at least one cohort, each by a positive number")
        if self.cohort_names is not None and not all(name.strip() for name in self.cohort_names or ("",)):
            raise ConfigurationError("cohort_names must name at least one cohort, and no empty names")
        check_page_size(self.page_size)

    @property
    def chooses_all(self) -> bool:
        """Whether all cohorts are asked for."""
        return self.cohort_ids is None and self.cohort_names is None
