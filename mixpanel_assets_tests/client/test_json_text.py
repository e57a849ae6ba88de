"""JSON in = JSON out: what is served is what is stored, to the character."""

import json
from typing import Any

import duckdb
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixpanel_assets.client import json_text
from mixpanel_assets.sandbox.hostile import MEMBERS
from mixpanel_assets.streams.profiles.wire import parse_page

pytestmark = pytest.mark.unit

DUCKDB = duckdb.connect()

# Numbers as texts that Python's own reader and writer would not give back, names that repeat, and any Unicode.
NUMBERS = st.sampled_from(["1.10", "1E5", "1e400", "-0.0", "-0", "9007199254740993", "123456789012345678901234567890"])
STRINGS = st.text(st.characters(codec="utf-8"), max_size=20).map(
    lambda text: json.dumps(text, ensure_ascii=len(text) % 2 == 0)
)
SPACES = st.sampled_from(["", " ", "\n\t", "\r\n "])
SCALARS = st.one_of(NUMBERS, STRINGS, st.sampled_from(["true", "false", "null", "[]", "{}"]))


def objects(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    member = st.tuples(STRINGS, SPACES, values).map(lambda parts: f"{parts[0]}:{parts[1]}{parts[2]}")
    return st.tuples(SPACES, st.lists(member, max_size=4)).map(
        lambda parts: "{" + parts[0] + ("," + parts[0]).join(parts[1]) + "}"
    )


def arrays(values: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.lists(values, max_size=4).map(lambda items: "[" + " , ".join(items) + "]")


VALUES = st.recursive(SCALARS, lambda inner: st.one_of(objects(inner), arrays(inner)), max_leaves=12)
PROPERTIES = objects(VALUES)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(PROPERTIES, min_size=1, max_size=3), SPACES)
def test_properties_come_out_of_a_page_as_they_went_in(properties: list[str], space: str) -> None:
    # Red when rows are read with json.loads and written with json.dumps.
    rows = ",".join(f'{{"$distinct_id":"{n}",{space}"$properties":{text}}}' for n, text in enumerate(properties))
    page = parse_page(f'{{"results":{space}[{rows}]{space}}}'.encode(), 0)
    assert [row.content for row in page.rows] == properties
    assert page.repairs == 0


@settings(max_examples=100, deadline=None, derandomize=True)
@given(PROPERTIES)
def test_what_is_read_here_can_be_stored(text: str) -> None:
    """One row that DuckDB refused would keep a whole snapshot from being published."""
    assert json_text.read_object(text.encode()) is not None
    stored = DUCKDB.execute("""select ?::json::varchar, ?::json ->> '$."$last_seen"'""", [text, text])
    [(back, _)] = stored.fetchall()
    assert back == text


@pytest.mark.parametrize("member", MEMBERS, ids=[member[1:12] for member in MEMBERS])
def test_hostile_values_can_be_stored(member: str) -> None:
    body, _ = json_text.repaired(f"{{{member}}}".encode())
    [(back,)] = DUCKDB.execute("select ?::json::varchar", [body.decode()]).fetchall()
    assert back.encode() == body


@pytest.mark.parametrize(
    "text",
    ["", "{", '{"a"}', '{"a":1', '{"a":1}}', '{"a":1} x', "[1]", "7", '{"a":NaN}', '{"a":01}', '{"a":"\n"}', "null"],
)
def test_what_is_no_whole_object_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        json_text.read_object(text.encode())


def test_nested_too_deep_is_an_error_like_any_other() -> None:
    with pytest.raises(ValueError, match="nested too deep"):
        json_text.read_object(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}")


@pytest.mark.parametrize(
    ("served", "stored", "repairs"),
    [
        (rb'"\ud83d\ude00"', rb'"\ud83d\ude00"', 0),
        (rb'"\ud800"', rb'"\ufffd"', 1),
        (rb'"x\udc00y\ud800"', rb'"x\ufffdy\ufffd"', 2),
        (rb'"\\ud800"', rb'"\\ud800"', 0),
        (rb'"\\\ud800"', rb'"\\\ufffd"', 1),
        (rb'"\ud800\ud83d\ude00"', rb'"\ufffd\ud83d\ude00"', 1),
        (b'"a\xffb"', '"a\ufffdb"'.encode(), 1),
        ('"\ufffd"'.encode(), '"\ufffd"'.encode(), 0),
        (b'"\xed\xa0\x80"', '"\ufffd\ufffd\ufffd"'.encode(), 3),
    ],
)
def test_what_is_no_unicode_is_replaced_and_counted(served: bytes, stored: bytes, repairs: int) -> None:
    # Red without the group `keep`: an escaped backslash before "ud800" and whole pairs are spoilt.
    assert json_text.repaired(served) == (stored, repairs)


@pytest.mark.parametrize(
    ("text", "string", "number"),
    [(b'"a\\u0041"', "aA", None), (b"-12", None, "-12"), (b"9" * 5000, None, "9" * 5000), (b"1.0", None, None),
     (b"null", None, None), (b'"7"', "7", None), (b"true", None, None), (b"1e3", None, None)],
)  # fmt: skip
def test_scalars(text: bytes, string: str | None, number: str | None) -> None:
    raw: Any = json_text.Text(text)
    assert (json_text.read_string(raw), json_text.read_whole_number(raw)) == (string, number)
