"""What a materialization says about its sync: counts, failures with reasons, and the content's version.

Plain values and Markdown for people and for `mp`; the names are fixed, others read them. Row counts of the table are
added by the IO manager, which alone knows them.
"""

import datetime
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from mixpanel_assets.client.server_text import visible
from mixpanel_assets.reports import table_schemas
from mixpanel_assets.streams.reports import failures, query_metadata, query_of, request_counts, timeline, unit_metadata
from mixpanel_assets.streams.snapshot.missing import MissingPages
from mixpanel_assets.streams.snapshot.page_rules import tolerated
from mixpanel_assets.streams.snapshot.snapshots import expected_total
from mixpanel_assets.streams.snapshot.staged import PageResult, Snapshot
from mixpanel_assets.streams.snapshot.stream import SnapshotStream


def sync_metadata(
    stream: SnapshotStream,
    snapshot: Snapshot,
    results: Sequence[PageResult],
    max_missing_fraction: float,
    run_began: datetime.datetime | None = None,
) -> Mapping[str, Any]:
    """Metadata of one materialization; the picture shows requests since `run_began`."""
    failed = [result for result in results if result.failed]
    reported = expected_total(snapshot, results)
    return {
        "failed_page_indices": dg.MetadataValue.json([result.page_index for result in failed]),
        # Early, since the UI shows them in this order.
        **failures(["page", "reason"], results, _named),
        **timeline(results, "pages", run_began),
        "successful_pages": len(results) - len(failed),
        "failed_pages": len(failed),
        "total_pages": len(results),
        "total_reported": _number(reported),
        f"tolerated_missing_{stream.name}": tolerated(reported or 0, max_missing_fraction),
        "session_id": visible(snapshot.session_id or "") or dg.MetadataValue.null(),
        "snapshot_id": snapshot.id,
        **query_metadata(snapshot.query),
        "session_restarts": snapshot.restarts,
        **request_counts(results),
        "fetched_rows": sum(result.rows for result in results),
        "rejected_rows": sum(result.rejected for result in results),
        "repaired_characters": sum(result.repairs for result in results),
        "dagster/column_schema": table_schemas.schema(stream.table_columns),
    }


def plan_metadata(snapshot: Snapshot, ordered: int, first: PageResult | None) -> dict[str, Any]:
    """What a plan says: pages in all, those ordered now, and page 0 if it was fetched with the plan."""
    metadata: dict[str, Any] = {"total_pages": snapshot.pages, "pages_ordered": ordered}
    return metadata if first is None else {**metadata, "page_index": 0, **unit_metadata(first)}


def last_sync(stream: SnapshotStream, metadata: Mapping[str, dg.MetadataValue[Any]]) -> MissingPages:
    """Read back what `sync_metadata` wrote; absent entries mean nothing failed."""
    failed = metadata["failed_page_indices"].value if "failed_page_indices" in metadata else []
    snapshot_id = metadata["snapshot_id"].value if "snapshot_id" in metadata else ""
    return MissingPages(query_of(metadata, stream.query), str(snapshot_id), [int(page) for page in failed or []])


def data_version(results: Sequence[PageResult]) -> dg.DataVersion:
    """A version that changes when the content does."""
    return dg.DataVersion(hashlib.sha256("".join(result.digest for result in results).encode()).hexdigest()[:32])


def _named(result: PageResult) -> tuple[int, str]:
    return result.page_index, (result.error or "").removeprefix(f"page {result.page_index}: ")


def _number(value: int | None) -> dg.MetadataValue[Any]:
    return dg.MetadataValue.null() if value is None else dg.MetadataValue.int(value)
