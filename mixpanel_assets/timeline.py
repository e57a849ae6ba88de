"""A sync as a picture: each page or chunk a bar on a time axis, so that a slow or throttled one is seen at a glance.

SVG text in a Markdown image, which Dagster's UI shows as it is. Belongs here: the drawing. Does not belong here: what a
page or chunk is (reports.py and event_reports.py say it as `Unit`).

Units share as few lanes as they can without overlap, so the number of lanes is how many were under way at a time, and
the picture stays small: 60 pages take 7 kB, 1,000 or 10,000 some 15 to 30 kB.
"""

import base64
import datetime
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from mixpanel_assets.mixpanel.retry import Attempt

_CAME, _FAILED, _WAITED, _INK, _GRID = "#3d9970", "#d9534f", "#f0c36d", "#555", "#e3e3e3"
_WIDTH, _MARGIN, _LANE, _BAR, _FOOT = 560, 4, 18, 14, 34
_DIGIT = 6.2
_MOST_LANES = 25
_STEPS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 43200, 86400)


@dataclass(frozen=True)
class Unit:
    """A page or chunk: what to call it, and each of its requests in order."""

    name: str
    attempts: Sequence[Attempt]


@dataclass(frozen=True)
class _Span:
    """A stretch of time in seconds from the first request, in one colour."""

    start: float
    end: float
    colour: str


@dataclass(frozen=True)
class _Row:
    name: str
    spans: list[_Span]

    @property
    def start(self) -> float:
        return self.spans[0].start

    @property
    def end(self) -> float:
        return max(span.end for span in self.spans)


def picture(units: Iterable[Unit], since: datetime.datetime | None = None) -> str:
    """The units as a Markdown image; empty when no request was sent.

    Args:
        units: Pages or chunks, in any order.
        since: When the run began; requests before it belong to another sync and are left out.
    """
    rows = _rows(units, since)
    if not rows:
        return ""
    encoded = base64.b64encode(_svg(rows).encode()).decode()
    return f"![each page or chunk on a time axis](data:image/svg+xml;base64,{encoded})"


def _rows(units: Iterable[Unit], since: datetime.datetime | None) -> list[_Row]:
    """Units with their requests as spans, the earliest first."""
    sent = [
        (unit, [attempt for attempt in unit.attempts if since is None or attempt.started_at >= since]) for unit in units
    ]
    sent = [(unit, attempts) for unit, attempts in sent if attempts]
    if not sent:
        return []
    zero = min(attempts[0].started_at for _, attempts in sent)
    rows = [_Row(unit.name, list(_spans(attempts, zero))) for unit, attempts in sent]
    return sorted(rows, key=lambda row: row.start)


def _spans(attempts: Sequence[Attempt], zero: datetime.datetime) -> Iterator[_Span]:
    for attempt in attempts:
        start, end = (attempt.started_at - zero).total_seconds(), (attempt.ended_at - zero).total_seconds()
        yield _Span(start, end, _CAME if attempt.error is None else _FAILED)
        if attempt.wait_seconds and attempt is not attempts[-1]:
            yield _Span(end, end + attempt.wait_seconds, _WAITED)


def _svg(rows: Sequence[_Row]) -> str:
    lanes = _lanes(rows)
    seconds = max(row.end for row in rows) or 0.1
    scale = (_WIDTH - 2 * _MARGIN) / seconds
    bottom = _LANE * len(lanes) + 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{bottom + _FOOT}" '
        f'font-family="sans-serif" font-size="10">',
        f'<rect width="{_WIDTH}" height="{bottom + _FOOT}" rx="3" fill="#fff"/>',
        *_axis(seconds, scale, bottom),
        *_bars(lanes, scale),
        *_names(lanes, scale),
        *_legend(bottom + 28),
        "</svg>",
    ]
    return "".join(parts)


def _lanes(rows: Sequence[_Row]) -> list[list[_Row]]:
    """Each row in the first lane that is free by then; what finds none of the first 25 shares the last."""
    lanes: list[list[_Row]] = []
    for row in rows:
        free = next((lane for lane in lanes if lane[-1].end <= row.start), None)
        if free is None and len(lanes) < _MOST_LANES:
            free = []
            lanes.append(free)
        (lanes[-1] if free is None else free).append(row)
    return lanes


def _axis(seconds: float, scale: float, bottom: int) -> Iterator[str]:
    step = next((step for step in _STEPS if seconds / step <= 10), 86400 * (1 + int(seconds // 864000)))
    for number in range(int(seconds / step) + 1):
        x = _MARGIN + number * step * scale
        yield f'<path d="M{x:.1f} 0V{bottom}" stroke="{_GRID}"/>'
        anchor = "start" if number == 0 else "middle" if x < _WIDTH - 20 else "end"
        yield f'<text x="{x:.1f}" y="{bottom + 11}" fill="{_INK}" text-anchor="{anchor}">{_time(number * step)}</text>'


def _bars(lanes: Sequence[Sequence[_Row]], scale: float) -> Iterator[str]:
    """One path per colour."""
    for colour in (_CAME, _WAITED, _FAILED):
        path = "".join(
            f"M{start:.1f} {number * _LANE + 2}H{end:.1f}v{_BAR}H{start:.1f}z"
            for number, lane in enumerate(lanes)
            for start, end in _stretches((span for row in lane for span in row.spans if span.colour == colour), scale)
        )
        if path:
            yield f'<path fill="{colour}" d="{path}"/>'


def _stretches(spans: Iterable[_Span], scale: float) -> Iterator[tuple[float, float]]:
    """From where to where each is drawn; those too short to be told apart are drawn as one, which bounds the size."""
    start = end = -1.0
    for span in spans:
        next_start, width = _MARGIN + span.start * scale, (span.end - span.start) * scale
        next_end = next_start + max(0.6, width - 0.6)
        if start >= 0 and width < 2 and next_start - end < 2:
            end = next_end
            continue
        if start >= 0:
            yield start, end
        start, end = next_start, next_end
    if start >= 0:
        yield start, end


def _names(lanes: Sequence[Sequence[_Row]], scale: float) -> Iterator[str]:
    yield '<g fill="#fff" text-anchor="middle">'
    for number, lane in enumerate(lanes):
        for row in lane:
            last = row.spans[-1]
            if (last.end - last.start) * scale >= _DIGIT * len(row.name) + 2:
                x = _MARGIN + (last.start + last.end) / 2 * scale
                yield f'<text x="{x:.0f}" y="{number * _LANE + _BAR - 2}">{escape(row.name)}</text>'
    yield "</g>"


def _legend(y: int) -> Iterator[str]:
    x = _MARGIN
    for colour, text in ((_CAME, "came"), (_FAILED, "failed request"), (_WAITED, "wait before the next try")):
        yield f'<rect x="{x}" y="{y - 8}" width="9" height="9" fill="{colour}"/>'
        yield f'<text x="{x + 13}" y="{y}" fill="{_INK}">{text}</text>'
        x += 32 + int(_DIGIT * len(text))


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:g} s"
    minutes = seconds / 60
    return f"{minutes:g} min" if minutes < 120 else f"{minutes / 60:g} h"
