"""Chunks that runs which are over have fetched and never stored: the next run takes them instead of asking again."""

import datetime
from collections.abc import Iterable, Mapping

from mixpanel_assets.storage.staging import Staging
from mixpanel_assets.streams.days import days_between
from mixpanel_assets.streams.events.chunking import Chunk, EventsPlan, Range
from mixpanel_assets.streams.events.staged import EventsFolder, RangeResult

# Late events of a day keep coming, so what an interrupted run left is worth taking over for a while only.
_WITHIN = datetime.timedelta(hours=24)


def take_over(
    staging: Staging, plan: EventsPlan, ended_runs: Iterable[str], loaded_at: Mapping[str, datetime.datetime]
) -> list[Range]:
    """Move chunks of the plan that ended runs fetched and never stored into the plan's folder. Returns them.

    Only days that were over when they were fetched, not long ago: others have grown since. And none that were loaded
    later (`loaded_at`, by day): who asks for those again wants what came since. What no run will take is deleted.
    """
    folder = EventsFolder(staging, plan.folder)
    wanted = set(plan.chunks)
    taken = []
    for run in ended_runs:
        other = EventsFolder(staging, run)
        fresh = [result for result in other.results() if _is_fresh(result, plan.started_at, loaded_at)]
        for result in fresh:
            chunk = Chunk(result.from_date, result.to_date, result.query)
            if chunk in wanted and folder.take_over(result, other) is not None:
                taken.append((chunk.from_date, chunk.to_date))
                wanted.discard(chunk)
        other.keep_only(fresh)
    return taken


def _is_fresh(result: RangeResult, now: datetime.datetime, loaded_at: Mapping[str, datetime.datetime]) -> bool:
    if result.asked_at is None or now - result.asked_at > _WITHIN:
        return False
    days = days_between(result.from_date, result.to_date)
    if any(day in loaded_at and loaded_at[day] > result.asked_at for day in days):
        return False
    # Over everywhere on earth: the last time zone ends a day 12 hours after UTC does.
    over_at = datetime.datetime.fromisoformat(f"{result.to_date}T00:00:00+00:00") + datetime.timedelta(hours=36)
    return result.asked_at >= over_at
