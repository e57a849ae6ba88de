"""What every sync says of itself, whatever it fetched: its requests, its failures with reasons, its picture, its query.

Plain values and Markdown for people and for `mp`; the names are fixed, others read them.
"""

import datetime
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import dagster as dg
import msgspec

from mixpanel_assets.reports import markdown
from mixpanel_assets.reports.timeline import Unit, picture
from mixpanel_assets.streams.outcome import Fetched, Outcome

Query = TypeVar("Query")
Ended = TypeVar("Ended", bound=Outcome)


def unit_metadata(fetched: Fetched) -> dict[str, Any]:
    """What one finished page or chunk says, in the UI and to progress bars."""
    attempts = [attempt for outcome in fetched.outcomes for attempt in outcome.attempts]
    seconds = (attempts[-1].ended_at - attempts[0].started_at).total_seconds() if attempts else 0.0
    metadata: dict[str, Any] = {
        "rows": fetched.rows,
        "seconds": round(seconds, 3),
        "attempts": len(attempts),
        "waited_seconds": round(sum(outcome.waited_seconds for outcome in fetched.outcomes), 3),
    }
    return metadata if fetched.error is None else {**metadata, "error": fetched.error}


def request_counts(outcomes: Iterable[Outcome]) -> dict[str, Any]:
    """What a sync asked of Mixpanel."""
    counted, sent = 0, 0
    for outcome in outcomes:
        counted += outcome.counted_requests
        sent += len(outcome.attempts)
    return {"counted_requests": counted, "requests": sent}


def failures(
    columns: Sequence[str], outcomes: Iterable[Ended], named: Callable[[Ended], Sequence[str | float]]
) -> dict[str, Any]:
    """Why what failed did, as a table for people; nothing where nothing failed.

    Args:
        columns: What the failed are named by, and the reason.
        outcomes: How each ended.
        named: The cells of one that failed, for these columns.
    """
    rows = [
        (*named(outcome), len(outcome.attempts), round(outcome.waited_seconds, 1))
        for outcome in outcomes
        if outcome.failed
    ]
    table = markdown.table([*columns, "attempts", "seconds waited"], rows)
    return {"failures": dg.MetadataValue.md(table)} if rows else {}


def timeline(outcomes: Iterable[Outcome], units: str, began: datetime.datetime | None) -> dict[str, Any]:
    """The picture of a sync, of requests since it began; nothing where none was sent."""
    drawn = picture((Unit(outcome.attempts) for outcome in outcomes), units, began)
    return {"timeline": dg.MetadataValue.md(drawn)} if drawn else {}


def query_metadata(query: object) -> dict[str, Any]:
    """What was asked for."""
    return {"query": dg.MetadataValue.json(msgspec.to_builtins(query))}


def query_of(metadata: Mapping[str, dg.MetadataValue[Any]], of: type[Query]) -> Query:
    """Read back what `query_metadata` wrote; versions before did not, and then it is taken for everything."""
    return msgspec.convert(metadata["query"].value if "query" in metadata else {}, of)
