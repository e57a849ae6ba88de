"""What the events of a sync say of themselves: counts, failures with reasons, and which days are still owed.

The names are fixed, others read them. A day's own numbers come from the table `event_days`.
"""

import datetime
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import dagster as dg

from mixpanel_assets import settings
from mixpanel_assets.client.served_days import Edge
from mixpanel_assets.errors import IncompleteSyncError
from mixpanel_assets.reports import table_schemas
from mixpanel_assets.settings import Variables
from mixpanel_assets.storage.rejected_rows import REJECTED_TABLE
from mixpanel_assets.streams.days import days_between
from mixpanel_assets.streams.events.chunking import (
    ChunkResult,
    EventsPlan,
    Range,
    failed_ranges,
    unserved_ranges,
)
from mixpanel_assets.streams.events.query import EventsQuery
from mixpanel_assets.streams.events.sample import StoredSample
from mixpanel_assets.streams.events.staged import RangeResult
from mixpanel_assets.streams.events.stored import COLUMNS, StoredDay, StoredEvents
from mixpanel_assets.streams.failures import OneLineFailure
from mixpanel_assets.streams.reports import failures, query_metadata, query_of, request_counts

# How many syncs with failures are looked back upon for days still owed.
_MOST_SYNCS = 1000
_TOO_OLD = "too_old_date_ranges"


def sync_metadata(
    plan: EventsPlan, results: Sequence[ChunkResult], stored: StoredEvents, days: Iterable[str], table_name: str
) -> dict[str, Any]:
    """Metadata of one sync, the same for all its days."""
    loaded = [stored.days[day] for day in days if day in stored.days]
    return {
        **_sync(plan, results, table_name),
        "duplicate_events": sum(day.duplicates for day in loaded),
        "rejected_rows": sum(day.rejected for day in loaded),
        "dagster/row_count": sum(day.rows for day in stored.days.values()),
    }


def sample_metadata(
    plan: EventsPlan, results: Sequence[ChunkResult], stored: StoredSample, table_name: str
) -> dict[str, Any]:
    """Metadata of a sync with a limit, and what was asked for."""
    [chunk] = plan.chunks
    said = _sync(plan, results, table_name)
    return {
        **said,
        **query_metadata(chunk.query),
        "date_range": dg.MetadataValue.json([chunk.from_date, chunk.to_date]),
        "duplicate_events": said["fetched_rows"] - stored.rejected - stored.rows,
        "rejected_rows": stored.rejected,
        "dagster/row_count": stored.rows,
    }


def _sync(plan: EventsPlan, results: Sequence[ChunkResult], table_name: str) -> dict[str, Any]:
    seconds = (datetime.datetime.now(datetime.timezone.utc) - plan.started_at).total_seconds()
    return {
        **failures_metadata(results),
        "fetched_rows": sum(part.lines + part.rejected for part in _parts(results) if part.came),
        "repaired_rows": sum(part.repaired for part in _parts(results)),
        "duration_seconds": round(seconds, 3),
        "dagster/table_name": table_name,
        "dagster/column_schema": table_schemas.schema(COLUMNS),
    }


def failures_metadata(results: Sequence[ChunkResult]) -> dict[str, Any]:
    """What came, what did not, and why."""
    came = sum(result.came for result in results)
    metadata: dict[str, Any] = {
        "failed_date_ranges": dg.MetadataValue.json([list(days) for days in failed_ranges(results)]),
        "successful_batches": came,
        "failed_batches": len(results) - came,
        **request_counts(_parts(results)),
    }
    unserved = [days for edge in Edge for days in unserved_ranges(results, edge)[0]]
    if unserved:
        metadata["unserved_date_ranges"] = dg.MetadataValue.json([list(days) for days in sorted(unserved)])
    return metadata | failures(["from", "to", "reason"], _parts(results), _named)


def noted_failures(results: Sequence[ChunkResult]) -> list[dict[str, Any]]:
    """What `owed_days` reads back: the failures, those of each query for themselves."""
    failed = [part.query for part in _parts(results) if part.failed]
    alike = ([result for result in results if result.ranges[0].query == query] for query in dict.fromkeys(failed))
    return [{**failures_metadata(some), **query_metadata(some[0].ranges[0].query)} for some in alike]


def noted_too_old(ranges: Sequence[Range], source: str | None) -> dict[str, Any]:
    """What `owed_days` reads back: days that are older than what the server serves, whatever is asked of them."""
    days = dg.MetadataValue.json([list(each) for each in ranges])
    return {_TOO_OLD: days, **query_metadata(EventsQuery(source=source))}


def named(ranges: Sequence[Range]) -> str:
    """Ranges of days in words."""
    return ", ".join(f"{first} to {last}" if first != last else first for first, last in ranges)


def day_metadata(day: StoredDay, query: EventsQuery) -> dict[str, Any]:
    """What was asked of a day, and what its load did, against the rows that it replaced."""
    return {
        **query_metadata(query),
        "dagster/partition_row_count": day.rows,
        "new_events": day.new,
        "changed_events": day.changed,
        "gone_events": day.gone,
    }


def rejected_words(rows: int, schema: str) -> str:
    """In a line, for whoever would take a sync with such rows for whole."""
    return f"{rows} rows that came cannot be stored and lie in {schema}.{REJECTED_TABLE}, with the reason"


def owed_days(instance: dg.DagsterInstance, asset: dg.AssetKey, source: str | None = None) -> dict[str, EventsQuery]:
    """Days that failed and have not come since, as ISO dates in order, each with what was asked of it.

    With a `source` those of other projects are left out.

    Every sync with failures leaves observations that name them; a later materialization of a day settles it, if it
    brought what was asked for, and so does a later word that the server does not serve it. Of a day that is owed under
    several queries the latest is named until it is settled.
    """
    failed: dict[tuple[str, EventsQuery], int] = {}
    too_old: set[tuple[str, str | None]] = set()
    for record in instance.fetch_observations(asset, limit=_MOST_SYNCS).records:
        metadata = record.asset_observation.metadata if record.asset_observation else {}
        query = query_of(metadata, EventsQuery)
        # The latest comes first.
        too_old.update((day, query.source) for day in _days(metadata, _TOO_OLD))
        if source is not None and query.source not in (None, source):
            continue
        for day in _days(metadata, "failed_date_ranges"):
            if (day, query.source) not in too_old:
                failed.setdefault((day, query), record.storage_id)
    came_at = instance.event_log_storage.get_latest_storage_id_by_partition(
        asset, dg.DagsterEventType.ASSET_MATERIALIZATION, partitions={day for day, _ in failed}
    )
    owed: dict[str, EventsQuery] = {}
    for (day, query), storage_id in failed.items():
        came = came_at.get(day, 0) > storage_id and _came_since(instance, asset, day, query, storage_id)
        if not came:
            owed.setdefault(day, query)
    return dict(sorted(owed.items()))


def last_run_with_failures(instance: dg.DagsterInstance, asset: dg.AssetKey) -> str:
    """The run that noted failures last; there must be one."""
    records = instance.fetch_observations(asset, limit=_MOST_SYNCS).records
    notes = ((record.run_id, record.asset_observation) for record in records)
    return next(run_id for run_id, note in notes if note and "failed_date_ranges" in note.metadata)


def _days(metadata: Mapping[str, dg.MetadataValue[Any]], name: str) -> list[str]:
    """The days of the ranges that metadata names."""
    ranges: Any = metadata[name].value if name in metadata else []
    return [day for from_date, to_date in ranges for day in days_between(from_date, to_date)]


def _came_since(
    instance: dg.DagsterInstance, asset: dg.AssetKey, day: str, query: EventsQuery, storage_id: int
) -> bool:
    """Whether a sync has brought of a day what a query asks for."""
    later = dg.AssetRecordsFilter(asset, asset_partitions=[day], after_storage_id=storage_id)
    # The latest nearly always did; an hourly schedule leaves a hundred of a day, 20 ms to read.
    records = (record for most in (1, _MOST_SYNCS) for record in instance.fetch_materializations(later, most).records)
    said = (record.asset_materialization.metadata for record in records if record.asset_materialization)
    return any(query_of(metadata, EventsQuery).covers(query) for metadata in said)


def _parts(results: Sequence[ChunkResult]) -> list[RangeResult]:
    return [part for result in results for part in result.ranges]


def _named(part: RangeResult) -> tuple[str, str, str]:
    return part.from_date, part.to_date, part.error or ""


def say_unserved(log: dg.DagsterLogManager, results: Sequence[ChunkResult], variables: Variables) -> None:
    """Warn of days that the server does not serve."""
    too_old, said = unserved_ranges(results, Edge.TOO_OLD)
    if too_old:
        log.warning(
            f"{named(too_old)}: beyond the history that the project's plan serves, left out and not owed ({said})"
        )
    not_yet, said = unserved_ranges(results, Edge.NOT_YET)
    if not_yet:
        log.warning(
            f"{named(not_yet)}: does not exist yet for Mixpanel, left out ({said}): "
            f"{variables.called('MP_TIMEZONE')} is {settings.timezone(variables).key}; projects made since 2023 count "
            "their days in UTC"
        )


def incomplete(results: Sequence[ChunkResult], failed: Sequence[Range], retry_job: str) -> OneLineFailure:
    """The failure of a sync that stored some days and not others."""
    days = named(failed)
    reason = next(result.error for result in results if result.error)
    text = f"missing: {days}; the other days are stored; job {retry_job} fetches them again ({reason})"
    return OneLineFailure(text, IncompleteSyncError.__name__, failures_metadata(results))
