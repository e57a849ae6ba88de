"""The settings that a sync of every stream in pages has."""

from pydantic import Field

from mixpanel_assets.settings import ENVIRONMENT, Variables
from mixpanel_assets.streams.budgets import check_choice
from mixpanel_assets.streams.settings import SyncConfig, check_fraction
from mixpanel_assets.streams.snapshot.list_page import ListQuery
from mixpanel_assets.streams.snapshot.stream import SnapshotQuery


class SnapshotConfig(SyncConfig):
    """Settings of one sync in pages."""

    max_removed_fraction: float = Field(
        default=0.5, description="Refuse a snapshot that would remove a larger share of the stored rows (0 to 1)."
    )
    max_missing_fraction: float = Field(
        default=0.001,
        description=(
            "Share of the reported rows (0 to 1) that may be missing from pages that came, as those deleted meanwhile "
            "are: told, and removing nobody; beyond it the sync fails, after storing what came."
        ),
    )
    retry_failed_pages: bool = Field(
        default=False, description="Fetch only the pages that failed last time, under the same session."
    )

    @property
    def incremental_hours(self) -> tuple[float, float] | None:
        """Where only rows seen since the last sync are asked for: hours of overlap with it, and from when on a complete
        sync is due; None: every sync is complete."""
        return None

    @property
    def keep_history(self) -> bool:
        """Whether what rows were is to be kept from now on."""
        return False

    def asked(self, variables: Variables = ENVIRONMENT) -> SnapshotQuery:
        """What a stream asks for with these settings, and those of its project, before it is checked."""
        raise NotImplementedError

    def query(self, variables: Variables = ENVIRONMENT) -> SnapshotQuery:
        check_fraction(self.max_removed_fraction)
        check_fraction(self.max_missing_fraction, "max_missing_fraction")
        check_choice(self.on_quota)
        query = self.asked(variables)
        query.check()
        return query


class ListConfig(SnapshotConfig):
    """Settings of a stream that is a list: it knows no filter."""

    def asked(self, variables: Variables = ENVIRONMENT) -> ListQuery:
        return ListQuery()
