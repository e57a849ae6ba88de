"""The concurrency pools of this code location, and how many of their steps may run at a time over all runs.

Names and numbers only: who gets a slot is executor/slots.py's.
"""

from collections.abc import Iterable, Mapping

# Mixpanel answers five queries of a project at a time; ten exports at a time are well within its hundred.
ENGAGE_POOL = "mixpanel_engage"
EXPORT_POOL = "mixpanel_export"
POOL_LIMITS: Mapping[str, int] = {ENGAGE_POOL: 5, EXPORT_POOL: 10}

# How far a person may raise a limit on an instance. Queries beyond five are refused; exports start three a second
# anyway.
POOL_CEILINGS: Mapping[str, int] = {ENGAGE_POOL: 5, EXPORT_POOL: 20}


def of_all_projects(limits: Mapping[str, int], pools: Iterable[str]) -> dict[str, int]:
    """The limits of these pools: those of a further project are called like ours, with `_` and its name at the end."""
    further = ((pool, own) for pool in pools for own in limits if pool.startswith(f"{own}_") and pool not in limits)
    return {**limits, **{pool: limits[own] for pool, own in further}}
