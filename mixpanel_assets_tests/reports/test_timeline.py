"""The picture of a sync, and tables of plain text."""

import datetime
import re
import urllib.parse
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mixpanel_assets.client.retry import Attempt
from mixpanel_assets.reports import markdown
from mixpanel_assets.reports.timeline import SHOWN_IN_PLACE, Unit, picture

pytestmark = pytest.mark.unit

_ZERO = datetime.datetime(2026, 1, 1, tzinfo=datetime.timezone.utc)


def _attempt(start: float, end: float, error: str | None = None, wait: float = 0.0) -> Attempt:
    return Attempt(_ZERO + datetime.timedelta(seconds=start), _ZERO + datetime.timedelta(seconds=end), error, wait)


def _svg(drawn: str) -> ElementTree.Element:
    found = re.search(r"svg\+xml,(.*)>\)", drawn)
    assert found, drawn
    return ElementTree.fromstring(urllib.parse.unquote(found[1]))


def _strokes(drawn: str) -> dict[str, str]:
    paths = _svg(drawn).iter("{http://www.w3.org/2000/svg}path")
    return {path.attrib["stroke"]: path.attrib["d"] for path in paths}


def test_failures_and_waits_are_seen() -> None:
    """Red when failed attempts are drawn as if they came."""
    drawn = picture([Unit([_attempt(0, 1, "500", 2), _attempt(3, 4)]), Unit([_attempt(0, 4)])], "pages")
    strokes = _strokes(drawn)
    assert strokes["crimson"] == "M0 5h99"
    assert strokes["gold"] == "M100 5h199"
    assert strokes["seagreen"] == "M300 5h99M0 16h399"
    assert drawn.endswith("2 pages in 4.0 s, up to 2 at a time\\\n1 requests failed (red; yellow: waits)")


def test_an_earlier_run_is_left_out() -> None:
    """Red without `since`: fifty minutes of nothing between the two."""
    units = [Unit([_attempt(0, 1)]), Unit([_attempt(3000, 3001)])]
    assert "1 pages in 1.0 s" in picture(units, "pages", since=_ZERO + datetime.timedelta(seconds=2000))
    assert picture(units, "pages", since=_ZERO + datetime.timedelta(days=1)) == ""


@pytest.mark.parametrize("number", [1, 60, 1000, 5000])
def test_small_enough_to_be_shown_in_place(number: int) -> None:
    """Red when only the finest drawing is tried."""
    units = [
        Unit([_attempt(0.3 * (i // 10), 0.3 * (i // 10) + 0.3, "500" if i % 7 == 0 else None)]) for i in range(number)
    ]
    drawn = picture(units, "chunks")
    assert len(drawn) < SHOWN_IN_PLACE
    assert _strokes(drawn)


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e4), st.booleans()), min_size=1, max_size=80))
def test_any_sync_can_be_drawn(spans: list[tuple[float, float, bool]]) -> None:
    units = [Unit([_attempt(start, start + length, "x" if failed else None)]) for start, length, failed in spans]
    drawn = picture(units, "pages")
    assert len(drawn) < SHOWN_IN_PLACE
    assert _svg(drawn).attrib["width"] == "400"


def test_a_cell_stays_text() -> None:
    """What a browser makes of it is test_browser.py's."""
    cells: list[str | float] = [
        "![x](http://evil/x.png) | `a`\n# b <img src=x>",
        "``x`` \u202e",
        "`",
        r"a\|b\\|c",
        "",
        1.5,
    ]
    made = markdown.table(["reason"], [[cell] for cell in cells])
    assert made.splitlines()[2:] == [
        r"| ``![x](http://evil/x.png) \| `a` # b <img src=x>`` |",
        r"| ``` ``x`` \u202e ``` |",
        "| `` ` `` |",
        r"| `a\\\|b\\\|c` |",
        "|  |",
        "| 1.5 |",
    ]


def test_a_long_table_is_cut() -> None:
    made = markdown.table(["n"], [[number] for number in range(markdown.MOST_ROWS + 2)])
    assert made.endswith("and 2 more")
