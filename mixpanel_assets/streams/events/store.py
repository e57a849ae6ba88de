"""What the IO manager does with the staged ranges of a sync, and what the UI shows of it."""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

from collections.abc import Mapping
from typing import Any

import dagster as dg
import duckdb

from mixpanel_assets.client.server_text import quoted
from mixpanel_assets.storage.warehouse import count
from mixpanel_assets.streams.days import ranges_of
from mixpanel_assets.streams.events.load import publish
from mixpanel_assets.streams.events.sample import publish_sample
from mixpanel_assets.streams.events.staged import StagedEvents, StagedSample
from mixpanel_assets.streams.events.stored import TABLE
from mixpanel_assets.streams.outcome import MISSING


def store(connection: duckdb.DuckDBPyConnection, staged: StagedEvents, log: dg.DagsterLogManager) -> Mapping[str, Any]:
    """Publish them, within the caller's transaction. Returns the metadata that only the table knows."""
    if isinstance(staged, StagedSample):
        return {"dagster/row_count": publish_sample(connection, staged)}
    published = publish(connection, staged)
    for refused in published.refused:
        log.error(f"{MISSING}{refused.reason}")
    if published.absent:
        log.warning(f"no event that came is named {quoted(published.absent)}: check events, capitals and spaces count")
    if published.left:
        days = ", ".join(f"{first} to {last}" for first, last in ranges_of(published.left))
        log.warning(f"{days}: left as stored by a sync that asked for these days later")
    return {"dagster/row_count": count(connection, f"select count(*) from {TABLE}")}
