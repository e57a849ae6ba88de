"""Lines of an export as a Parquet file: row by row what was served, or no file at all."""

import json
import re
import tempfile
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mixpanel_assets.sandbox import Population
from mixpanel_assets.sandbox.hostile import MEMBERS
from mixpanel_assets.streams.events import columns as event_columns
from mixpanel_assets_tests.staged_events import lines_of, rows_of, write

pytestmark = pytest.mark.unit

# A busy machine is no finding.
STEADY = settings(deadline=None)
GOOD = b'{"event":"good","properties":{"time":1767268800,"distinct_id":"a","$insert_id":"i"}}'

AWKWARD_NAMES = (
    '"\\",\\"properties\\":{"',
    '"\\\\"',
    '"\\\\\\","',
    '"\\u0041 \\/ \\u2028"',
    '"\u2028\u2029\u0085"',
    '"{\\"event\\":\\"x\\""',
    '"\U0001f600 \\ud83d\\ude00"',
    '" "',
)
AWKWARD_PROPERTIES = (
    "{}",
    '{"x":1.10,"y":1e400,"z":-0.0,"big":9007199254740993,"bigger":123456789012345678901234567890}',
    '{"x":1,"x":2,"time":1,"time":2}',
    '{"x":"\\",\\"properties\\":{"}',
    '{"event":"not me","properties":{"event":"nor me","properties":{}}}',
    '{"a":"\\\\","properties":{"deep":1}}',
    '{ "spaced" : [ 1 , 2 ] }',
    '{"d":' * 1000 + "[[[0]]]" + "}" * 1000,
    *(f"{{{member}}}" for member in MEMBERS if "lone" not in member),
)

# Each of these would be lost, or stored as something else, if its guard in `_COLUMNS` were gone.
UNUSUAL = (
    b"",
    b"{",
    b"null",
    b"7",
    b"<html>",
    b'{"event":"a","properties":{}',
    b'{"event":"a","properties":{"x":}}',
    b'{"event":"a","properties":{}}}',
    b'{"event":"a","properties":{}},',
    b'{"event":"a","properties":{}}{"event":"b","properties":{}}',
    b'{"event":"a","properties":{}}\r{"event":"b","properties":{}}',
    b'{"event":"a","properties":{},"more":1}',
    b'{"event":"a","properties":{},"properties":{}}',
    b'{"event":"a","properties":{"x":{"y":1}},"z":{}}',
    b'{"event":"a","event":"b","properties":{}}',
    b'{"event":"a","more":{"p":"q","properties":{}}}',
    b'{"event":"a","more":"b","properties":{}}',
    b'{"event":"a" ,"properties":{}}',
    b'{"Event":"a","properties":{}}',
    b'{"event":124,"properties":{}}',
    b'{"event":null,"properties":{}}',
    b'{"event":"","properties":{}}',
    b'{"event":"a","properties":[]}',
    b'{"event":"a","properties":"{}"}',
    b'{"event":"a","properties":null}',
    b'{"event":"a"}',
    b'{"properties":{},"event":"a"}',
    b'[{"event":"a","properties":{}}]',
    b'{"event":"a","properties":{"x":"\\ud800"}}',
    b'{"event":"\\ud800","properties":{}}',
    b'{"event":"a","properties":{"x":"\xff"}}',
    b'{"event":"a","properties":{"x":"\x00"}}',
)


def test_a_usual_line_in_columns(tmp_path: Path) -> None:
    file = write(tmp_path, GOOD, b'{"event":"\\u0062","properties":{}}')
    assert file is not None
    rows = rows_of(
        file, "name, event_name, event_time::varchar, distinct_id, insert_id, properties, typeof(properties)"
    )
    assert sorted(rows, reverse=True) == [
        (
            '"good"',
            "good",
            "2026-01-01 12:00:00",
            "a",
            "i",
            """{"time":1767268800,"distinct_id":"a","$insert_id":"i"}""",
            "JSON",
        ),
        ('"\\u0062"', "b", None, None, None, "{}", "JSON"),
    ]


@pytest.mark.parametrize("lines", [(), (b"",), (GOOD,)], ids=["none", "blank", "one"])
def test_small_files(tmp_path: Path, lines: tuple[bytes, ...]) -> None:
    file = write(tmp_path, *lines)
    assert (lines_of(file) if file else None) == (None if b"" in lines else list(lines))


@pytest.mark.parametrize("line", UNUSUAL, ids=[line.decode(errors="replace")[:60] for line in UNUSUAL])
@pytest.mark.parametrize("place", ["alone", "first", "last", "beside a blank line"])
def test_one_unusual_line_and_there_is_no_file(tmp_path: Path, line: bytes, place: str) -> None:
    """With a blank line as well, a line that became two rows would make up for the one that became none."""
    lines = {"alone": [line], "first": [line, GOOD], "last": [GOOD, line], "beside a blank line": [GOOD, line, b""]}
    assert write(tmp_path, *lines[place]) is None


@pytest.mark.parametrize("name", AWKWARD_NAMES)
def test_awkward_names_and_values_stay_as_served(tmp_path: Path, name: str) -> None:
    lines = [f'{{"event":{name},"properties":{properties}}}'.encode() for properties in AWKWARD_PROPERTIES]
    file = write(tmp_path, *lines)
    assert file is not None
    assert lines_of(file) == sorted(lines)
    assert {found for (found,) in rows_of(file, "event_name")} == {json.loads(name)}


def test_a_day_of_hostile_events_is_staged_as_served(tmp_path: Path) -> None:
    events = Population(events_per_day=3000, hostile=True).events("2026-01-01", milliseconds=True)
    served = {f'{{"event":{json.dumps(name)},"properties":{text}}}': json.loads(text) for name, text in events}
    whole = {line.encode(): values for line, values in served.items() if "\\ud800" not in line}
    file = write(tmp_path, *whole)
    assert file is not None
    assert lines_of(file) == sorted(whole)
    ids = rows_of(file, "distinct_id, insert_id")
    assert sorted(ids) == sorted((_text(values["distinct_id"]), values["$insert_id"]) for values in whole.values())


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


_PIECES = st.sampled_from(
    [
        *('{"event":"', '","properties":{', '","properties":{"x":"', '{"event":"a","properties":{}}'),
        *(
            '"a"',
            '"x":1',
            '"event"',
            '"properties"',
            '"',
            "\\",
            ",",
            ":",
            "{",
            "}",
            "}}",
            "[",
            "]",
            "1",
            " ",
            "é",
            "\n",
        ),
    ]
)


@STEADY
@given(pieces=st.lists(st.lists(_PIECES, max_size=8).map("".join), min_size=1, max_size=4))
@example(['{"event":"a\\', '","properties":{', "}}"])
def test_whatever_passes_is_a_usual_line(pieces: list[str]) -> None:
    """Against Python's parser: no other line passes, and those that pass come out as they went in."""
    lines = "".join(f'{{"event":"{piece}\n' for piece in pieces).encode().split(b"\n")[:-1]
    with tempfile.TemporaryDirectory() as folder:
        file = write(Path(folder), *lines)
        assert (file is not None) == all(_is_usual(line) for line in lines)
        if file is not None:
            assert lines_of(file) == sorted(lines)


def _is_usual(line: bytes) -> bool:
    try:
        members = json.loads(line, object_pairs_hook=list)
    except ValueError:
        return False
    begins_well = re.match(rb'\{"event":"(?:[^"\\]|\\.)+","properties":\{', line)
    names = [name for name, _ in members] if isinstance(members, list) else []
    return begins_well is not None and names == ["event", "properties"] and line.endswith(b"}")


@STEADY
@given(events=st.lists(st.tuples(st.text(min_size=1), st.dictionaries(st.text(), st.text())), min_size=1))
def test_any_text_stays_as_served(events: list[tuple[str, dict[str, str]]]) -> None:
    lines = [f'{{"event":{_dumped(name)},"properties":{_dumped(properties)}}}'.encode() for name, properties in events]
    with tempfile.TemporaryDirectory() as folder:
        file = write(Path(folder), *lines)
        assert file is not None
        assert lines_of(file) == sorted(lines)
        assert sorted(found for (found,) in rows_of(file, "event_name")) == sorted(name for name, _ in events)


def _dumped(value: object) -> str:
    """JSON as Mixpanel writes it, not ASCII alone; `st.text()` makes no halves of surrogate pairs."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def test_after_an_error_the_next_file_gets_a_database_of_its_own(tmp_path: Path) -> None:
    """Red without `give_up`: after some errors DuckDB answers nothing, and all files of a run would fail."""
    (tmp_path / "events.parquet").mkdir()
    with event_columns._database.cursor(tmp_path) as first:
        first.execute("create table mark (a int)")
        with pytest.raises(OSError, match=r"events\.parquet"):
            write(tmp_path, GOOD)
        with event_columns._database.cursor(tmp_path) as second:
            [(tables,)] = second.execute("select count(*) from duckdb_tables()").fetchall()
    assert tables == 0


def test_a_line_longer_than_any_event_is_no_export(tmp_path: Path) -> None:
    # Red, with DuckDB's own exception, when it is not caught.
    assert write(tmp_path, b"<html>" + b"x" * (5 * event_columns.MAX_LINE_BYTES)) is None


def test_a_target_that_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "events.parquet").mkdir()
    with pytest.raises(OSError, match=r"^[^\n]*events\.parquet[^\n]*$"):
        write(tmp_path, GOOD)
