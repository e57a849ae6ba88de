"""What `time` of an event means: UTC, or the wall clock of the project's zone, as in projects made before 2023.

Mixpanel writes a wall clock as if it were UTC. An hour that the clock shows twice, in autumn, is taken for the first of
the two; one that it skips, in spring, for the same distance after the change.

Source: Mixpanel's raw export API; PEP 495 for the two hours.
"""

from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

_HOUR = timedelta(hours=1)
_SECOND = timedelta(seconds=1)
_DAY = timedelta(days=1)


def instant(clock: str, zone: ZoneInfo, first: str, last: str) -> str:
    """SQL for the UTC TIMESTAMP of an expression for the wall clock of a zone.

    Args:
        clock: A TIMESTAMP.
        zone: The zone of the clock.
        first: The first of its days that may occur, ISO.
        last: The last.
    """
    periods = _periods(zone, datetime.fromisoformat(first), datetime.fromisoformat(last) + _DAY)
    *changes, (_, offset) = periods
    ends = [since for since, _ in periods[1:]]
    cases = " ".join(
        f"when {clock} < timestamp '{end}' then {_less(clock, before)}"
        for end, (_, before) in zip(ends, changes, strict=True)
    )
    return f"case {cases} else {_less(clock, offset)} end" if cases else _less(clock, offset)


def _periods(zone: ZoneInfo, clock: datetime, end: datetime) -> list[tuple[datetime, timedelta]]:
    """When each offset from UTC begins to hold, by the wall clock: the first at its start."""
    periods = [(clock, _offset(clock, zone))]
    while clock < end:
        offset = _offset(clock + _HOUR, zone)
        if offset != periods[-1][1]:
            periods.append((_change(clock, zone), offset))
        clock += _HOUR
    return periods


def _change(clock: datetime, zone: ZoneInfo) -> datetime:
    """The second within an hour from which on the other offset holds."""
    before, after = clock, clock + _HOUR
    while after - before > _SECOND:
        middle = before + (after - before) // _SECOND // 2 * _SECOND
        if _offset(middle, zone) == _offset(clock, zone):
            before = middle
        else:
            after = middle
    return after


def _offset(clock: datetime, zone: ZoneInfo) -> timedelta:
    return clock.replace(tzinfo=zone).utcoffset() or timedelta()


def _less(clock: str, offset: timedelta) -> str:
    return f"{clock} - to_microseconds({offset // timedelta(microseconds=1)})"
