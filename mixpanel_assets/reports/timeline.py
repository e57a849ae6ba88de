"""A sync as a picture: each page or chunk a bar on a time axis, so that a slow or throttled one is seen at a glance.

SVG in a Markdown image. Dagster's UI shows Markdown in place if it has fewer than 1,000 characters, and else a link: so
the picture is drawn as fine as fits. Belongs here: the drawing. Does not belong here: what a page or chunk is
(streams/*/reports.py say it as `Unit`).

Units share as few lanes as they can without overlap: the number of lanes is how many were under way at a time.
"""

import datetime
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from mixpanel_assets.client.retry import Attempt

SHOWN_IN_PLACE = 1000
_CAME, _FAILED, _WAITED = "seagreen", "crimson", "gold"
_WIDTH, _LANE, _BAR, _FOOT = 400, 11, 9, 14
_MOST_LANES = 20
_PIXELS = (1, 3, 5, 8, 12, 18, 27, 40, 60, 100, _WIDTH)
_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400, 43200, 86400)
_MOST_TICKS = 3


@dataclass(frozen=True)
class Unit:
    """A page or chunk, as its requests in order."""

    attempts: Sequence[Attempt]


@dataclass(frozen=True)
class _Span:
    """A stretch of time in seconds from the first request, in one colour."""

    start: float
    end: float
    colour: str


_Row = list[_Span]


def picture(units: Iterable[Unit], what: str, since: datetime.datetime | None = None) -> str:
    """The units as a Markdown image with a line of words; empty when no request was sent.

    Args:
        units: Pages or chunks, in any order.
        what: What they are called, e.g. "pages".
        since: When the run began; requests before it belong to another sync and are left out.
    """
    rows = _rows(units, since)
    if not rows:
        return ""
    lanes = _lanes(rows)
    seconds = max(max(_ends(row) for row in rows), 0.1)
    failed = sum(span.colour == _FAILED for row in rows for span in row)
    words = f"{len(rows)} {what} in {seconds:.1f} s, up to {len(lanes)} at a time"
    if failed:
        words += f"\\\n{failed} requests failed (red; yellow: waits)"
    drawings = (f"![](<data:image/svg+xml,{_svg(lanes, seconds, pixel)}>)" for pixel in _PIXELS)
    drawn = next((each for each in drawings if len(each) + len(words) < SHOWN_IN_PLACE - 2), "")
    return f"{drawn}\n\n{words}"


def _rows(units: Iterable[Unit], since: datetime.datetime | None) -> list[_Row]:
    """Units with their requests as spans, the earliest first."""
    sent = [[each for each in unit.attempts if since is None or each.started_at >= since] for unit in units]
    sent = [attempts for attempts in sent if attempts]
    if not sent:
        return []
    zero = min(attempts[0].started_at for attempts in sent)
    return sorted((list(_spans(attempts, zero)) for attempts in sent), key=lambda row: row[0].start)


def _spans(attempts: Sequence[Attempt], zero: datetime.datetime) -> Iterator[_Span]:
    for attempt in attempts:
        start, end = (attempt.started_at - zero).total_seconds(), (attempt.ended_at - zero).total_seconds()
        yield _Span(start, end, _CAME if attempt.error is None else _FAILED)
        if attempt.wait_seconds and attempt is not attempts[-1]:
            yield _Span(end, end + attempt.wait_seconds, _WAITED)


def _ends(row: _Row) -> float:
    return max(span.end for span in row)


def _lanes(rows: Sequence[_Row]) -> list[list[_Row]]:
    """Each row in the first lane that is free by then; what finds none shares the last of `_MOST_LANES`."""
    lanes: list[list[_Row]] = []
    for row in rows:
        free = next((lane for lane in lanes if _ends(lane[-1]) <= row[0].start), None)
        if free is None and len(lanes) < _MOST_LANES:
            free = []
            lanes.append(free)
        (lanes[-1] if free is None else free).append(row)
    return lanes


def _svg(lanes: Sequence[Sequence[_Row]], seconds: float, pixel: int) -> str:
    """The drawing, as the rest of a data URL; nothing narrower than `pixel` is told apart."""
    scale = _WIDTH / seconds
    height = _LANE * len(lanes)
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{_WIDTH}' height='{height + _FOOT}' font-size='10' "
        f"stroke-width='{_BAR}'>",
        *(f"<path stroke='{colour}' d='{d}'/>" for colour, d in _bars(lanes, scale, pixel)),
        *_axis(seconds, scale, height),
        "</svg>",
    ]
    return "".join(parts).replace("<", "%3C").replace(">", "%3E")


def _axis(seconds: float, scale: float, height: int) -> Iterator[str]:
    step = next((step for step in _STEPS if seconds / step <= _MOST_TICKS), seconds)
    ticks = [number * step for number in range(int(seconds / step) + 1)]
    yield "<g fill='gray'>"
    for tick in ticks:
        # A label that would be cut at the right edge is left out.
        if tick * scale <= _WIDTH - 30:
            yield f"<text x='{tick * scale:.0f}' y='{height + 11}'>{_time(tick)}</text>"
    yield "</g>"


def _bars(lanes: Sequence[Sequence[_Row]], scale: float, pixel: int) -> Iterator[tuple[str, str]]:
    """A path per colour: what came, then the waits and failures, which must not hide behind it."""
    for colour in (_CAME, _WAITED, _FAILED):
        d = ""
        for number, lane in enumerate(lanes):
            spans = (span for row in lane for span in row if span.colour == colour)
            at = None
            for start, end in _stretches(spans, scale, pixel):
                d += f"M{start} {number * _LANE + _BAR // 2 + 1}" if at is None else f"m{start - at} 0"
                d += f"h{end - start}"
                at = end
        if d:
            yield colour, d


def _stretches(spans: Iterable[_Span], scale: float, pixel: int) -> Iterator[tuple[int, int]]:
    """From where to where each is drawn, a pixel apart.

    What came and is narrower than `pixel` is drawn as one with its neighbour; of failures and waits so close together
    only the first is drawn, as a long red bar would be a lie.
    """
    start, end = -_WIDTH, -_WIDTH
    for span in spans:
        first = round(span.start * scale)
        last = max(round(span.end * scale) - 1, first + 1)
        if first - end <= max(1, pixel - 1) and last - first < pixel:
            end = last if span.colour == _CAME else end
            continue
        if end > 0:
            yield start, end
        start, end = first, last
    if end > 0:
        yield start, end


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:g} s"
    minutes = seconds / 60
    return f"{minutes:g} min" if minutes < 120 else f"{minutes / 60:g} h"
