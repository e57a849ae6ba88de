"""The settings that every sync has: what of it may be kept, and what happens when the hour is spent."""

from typing import Any

import dagster as dg
from pydantic import Field

from mixpanel_assets import settings
from mixpanel_assets.client.property_filter import PropertyFilter
from mixpanel_assets.errors import ConfigurationError
from mixpanel_assets.settings import ENVIRONMENT, Variables
from mixpanel_assets.streams.budgets import STOP


class SyncConfig(dg.Config):
    """Settings of one sync, whatever it fetches."""

    on_quota: str = Field(
        default=STOP, description="When the hourly quota is too small: stop, or wait until there is room."
    )

    @classmethod
    def parts(cls, variables: Variables = ENVIRONMENT) -> int | None:
        """How many parts a sync has, where the project's settings name them; None: only Mixpanel tells."""
        return None

    def nothing_named(self, variables: Variables = ENVIRONMENT) -> str | None:
        """What to set where neither these settings nor the project's name anything to ask for; None: something is."""
        return None

    def query(self, variables: Variables = ENVIRONMENT) -> Any:
        """What is asked of Mixpanel with these settings, as the stream's own type.

        Raises:
            ConfigurationError: a setting is out of range, or two contradict each other; in one line that names them.
        """
        raise NotImplementedError


class PropertiesConfig(SyncConfig):
    """Settings of one sync of what has properties."""

    include_properties: list[str] | None = Field(
        default=None, description="Store only these properties (default: all). Others never reach a file or table."
    )
    exclude_properties: list[str] = Field(
        default=[], description="Store none of these properties; they never reach a file or table."
    )
    hash_properties: list[str] = Field(
        default=[],
        description=(
            "Store these as SHA-256 of their value, keyed with MP_HASH_SALT if that is set. "
            "Of profiles, $distinct_id means the id too."
        ),
    )

    def kept(self, variables: Variables = ENVIRONMENT) -> PropertyFilter:
        """Which properties may be kept: run config can take more away than the project's settings, and give nothing
        back.

        Raises:
            ConfigurationError: the lists contradict each other, or the project's cannot be read.
        """
        include = None if self.include_properties is None else tuple(self.include_properties)
        of_run = PropertyFilter(include, tuple(self.exclude_properties), tuple(self.hash_properties))
        of_run.check()
        of_all = settings.property_filter(variables)
        of_all.check()
        return of_all.intersect(of_run)


def check_fraction(value: float, name: str = "max_removed_fraction") -> None:
    """Refuse a share that is none.

    Raises:
        ConfigurationError: one line that names the setting.
    """
    if not 0 <= value <= 1:
        raise ConfigurationError(f"{name} must be between 0 and 1, not {value}")
