"""What the IO manager does with the order for identities, and what the UI shows of it: counts, no ids."""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

from collections.abc import Mapping
from typing import Any

import dagster as dg
import duckdb

from mixpanel_assets.identities.clusters import MOST_IDS
from mixpanel_assets.identities.publish import IdentitiesOrder, publish


def store(
    connection: duckdb.DuckDBPyConnection, order: IdentitiesOrder, log: dg.DagsterLogManager
) -> Mapping[str, Any]:
    """Find out who is who, within the caller's transaction. Returns the metadata."""
    left = publish(connection, order)
    log.info(f"{order.schema}.{order.table}: {left.merged} merged ids of {left.persons} persons")
    if left.doubtful:
        log.warning(
            f"{left.doubtful} times more ids were to be merged than Mixpanel merges (over {MOST_IDS}, or two that "
            "have a profile each): there only what Mixpanel has proven counts"
        )
    return {"merged_ids": left.merged, "merged_persons": left.persons, "doubtful_merges": left.doubtful}
