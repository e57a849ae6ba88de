"""Which properties a sync may keep: by its run config, and by the environment, which binds every sync."""

from collections.abc import Sequence

from mixpanel_assets import settings
from mixpanel_assets.mixpanel.property_filter import PropertyFilter


def kept_properties(include: Sequence[str] | None, exclude: Sequence[str], hashed: Sequence[str]) -> PropertyFilter:
    """What both allow: run config can take more away than the environment, and give nothing back.

    Raises:
        ConfigurationError: the lists contradict each other, or the environment's cannot be read.
    """
    of_run = PropertyFilter(None if include is None else tuple(include), tuple(exclude), tuple(hashed))
    of_run.check()
    of_all = settings.property_filter()
    of_all.check()
    return of_all.and_also(of_run)
