"""A Dagster asset pipeline that copies a Mixpanel project's profiles and events into DuckDB.

    from mixpanel_assets import fetch_events, fetch_profiles

Data flows one way, from left to right:

    Mixpanel ──bytes──> client/ ──> streams/<name>/ ──> storage/ (staged files) ──> io_managers.py ──> DuckDB
                                         |
                             results, metadata ──> checks, Dagster UI, mp

Coming in: client/ sends requests and knows no stream. streams/ has a folder for each kind of data: what is asked for,
what a good answer is, its staged files, its table, its ops and checks. Waiting and landing: storage/ has files that are
whole or absent, and the DuckDB file with its one transaction; io_managers.py is the only writer. properties/ makes
columns out of the JSON, identities/ finds out who is who. executor/ runs the steps as threads; file_turns.py lets other
people's among them have the DuckDB file.

Wiring: definitions.py is what Dagster loads, component.py the same as YAML; they are made of resources.py, jobs.py,
schedules.py, sensors.py and others with Dagster's names. projects.py is how several Mixpanel projects are told apart;
reports/ has what a sync says of itself in the UI, as far as the streams share it.

For people: fetch.py is the functions above, cli/ is `mp`, both on runs/, which starts the same run as the Dagster UI;
results.py is what they return. sandbox/ is a Mixpanel to play with.

Everywhere: errors.py (named by what to do about them), settings.py (all of the environment).

Importing this package imports none of it; the names below are fetched when they are first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mixpanel_assets.component import MixpanelComponent
    from mixpanel_assets.fetch import fetch_events, fetch_list, fetch_profiles
    from mixpanel_assets.results import (
        BatchProgress,
        BatchResult,
        FetchResult,
        ParallelFetchResult,
        ParallelProfileFetchResult,
        ProfileBatchProgress,
    )

__all__ = [
    "BatchProgress",
    "BatchResult",
    "FetchResult",
    "MixpanelComponent",
    "ParallelFetchResult",
    "ParallelProfileFetchResult",
    "ProfileBatchProgress",
    "fetch_events",
    "fetch_list",
    "fetch_profiles",
]

_MODULE_OF = {
    "MixpanelComponent": "component",
    "fetch_events": "fetch",
    "fetch_list": "fetch",
    "fetch_profiles": "fetch",
}


def __getattr__(name: str) -> Any:
    """A public name, imported on first use: Dagster takes seconds, and `mp --help` does not need it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULE_OF.get(name, 'results')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
