"""Where the limits are kept that all processes share: files of one machine, or the Postgres that its hosts share.

Belongs here: the two kinds behind one interface. Does not belong here: the rules (quota.py, start_rate.py), and how
many requests run at once, which Dagster's pools keep (pools.py).
"""

import threading
from pathlib import Path
from typing import Protocol

from mixpanel_assets.client.quota import LEDGER_FILE, Ledger
from mixpanel_assets.client.start_rate import StartRate, schema_starts


class KeptLimits(Protocol):
    """The ledger of counted requests, and when requests started."""

    def ledger(self, stop: threading.Event | None = None) -> Ledger:
        """Counted requests; waits for others end when `stop` is set."""

    def export_starts(self, project_id: str, *, further: bool) -> StartRate:
        """Starts of a project's exports; `further`: not the project of the environment."""

    def schema_starts(self) -> StartRate:
        """Starts of requests for the schemas of Lexicon."""

    def close(self) -> None:
        """Let go of what is open."""


class LimitFiles:
    """Files in DAGSTER_HOME."""

    def __init__(self, home: Path) -> None:
        self._home = home

    def ledger(self, stop: threading.Event | None = None) -> Ledger:
        return Ledger(self._home / LEDGER_FILE, stop=stop)

    def export_starts(self, project_id: str, *, further: bool) -> StartRate:
        return StartRate(self._home / (f"export_starts_{project_id}" if further else "export_starts"))

    def schema_starts(self) -> StartRate:
        return schema_starts(self._home / "schema_starts")

    def close(self) -> None:
        """Nothing is open between two requests."""
