"""A page on the wire: what is asked, and which answers are a page."""

import json
from typing import Any

import pytest

from mixpanel_assets.client.server_text import ServerText
from mixpanel_assets.errors import ConfigurationError, MixpanelError, RestartError, TransientError
from mixpanel_assets.streams.profiles.query import ProfileQuery
from mixpanel_assets.streams.profiles.wire import MalformedPageError, page_request, parse_page

pytestmark = pytest.mark.unit

ROW = {"$distinct_id": "a", "$properties": {"x": 1}}


def body(**members: Any) -> bytes:
    return json.dumps(
        {"page": 1, "page_size": 2, "session_id": "s", "status": "ok", "results": [ROW], **members}
    ).encode()


def test_a_whole_page() -> None:
    page = parse_page(body(total=3), 1)
    assert (page.page, page.page_size, page.total, page.session_id, page.served) == (1, 2, 3, "s", 1)
    assert [(row.key, row.content) for row in page.rows] == [("a", '{"x": 1}')]
    assert page.rejected == ()


def test_a_page_behind_a_byte_order_mark_is_a_page() -> None:
    """Red when the mark is taken for a part of the JSON: the page would be refused for ever."""
    assert parse_page(b"\xef\xbb\xbf" + body(total=3), 1) == parse_page(body(total=3), 1)


def test_an_error_that_is_null_is_none() -> None:
    """Red when the name alone makes an error: the page would be refused for ever."""
    assert parse_page(body(error=None), 1).served == 1


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (b"", MalformedPageError, r"page 1: the answer is not whole JSON \(0 bytes\)"),
        (body()[:-5], MalformedPageError, "not whole JSON"),
        (body() + b"x", MalformedPageError, "not whole JSON"),
        (b"<html>Please log in</html>", MalformedPageError, "not whole JSON"),
        (b"[]", MalformedPageError, "not whole JSON"),
        (b'{"page":1,"status":"ok"}', MalformedPageError, "no results"),
        (body(results=None), MalformedPageError, "no results"),
        (body(results={"a": 1}), MalformedPageError, "no results"),
        (body(page=2), MalformedPageError, "sent page 2 instead"),
        (b'{"error":"Internal error"}', TransientError, "answered 200 with an error: Internal error"),
        (b'{"status":"error"}', TransientError, "answered 200 with an error: no reason given"),
        (b'{"status":"error","error":null}', TransientError, "answered 200 with an error: no reason given"),
        (b'{"error":"request for page in uncached query for params"}', RestartError, "the session is lost"),
    ],
    ids=range(13),
)
def test_what_is_no_page(answer: bytes, error: type[MixpanelError], says: str) -> None:
    with pytest.raises(error, match=says):
        parse_page(answer, 1)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("7", "not an object"),
        ("null", "not an object"),
        ('"text"', "not an object"),
        ("[]", "not an object"),
        ("{}", "no $distinct_id"),
        ('{"$properties":{}}', "no $distinct_id"),
        ('{"$distinct_id":null}', "$distinct_id is neither text nor a whole number"),
        ('{"$distinct_id":1.5}', "$distinct_id is neither text nor a whole number"),
        ('{"$distinct_id":true}', "$distinct_id is neither text nor a whole number"),
        ('{"$distinct_id":["a"]}', "$distinct_id is neither text nor a whole number"),
        ('{"$distinct_id":"a","$properties":[]}', "$properties is not an object"),
        ('{"$distinct_id":"a","$properties":"x"}', "$properties is not an object"),
    ],
)
def test_a_row_that_is_no_profile_is_set_aside_as_served(row: str, reason: str) -> None:
    good = json.dumps(ROW)
    page = parse_page(f'{{"results":[{good},{row},{good}]}}'.encode(), 0)
    assert [(aside.row_number, aside.reason, aside.text) for aside in page.rejected] == [(1, reason, row)]
    assert (len(page.rows), page.served) == (2, 3)


@pytest.mark.parametrize(
    ("served", "stored"),
    [("4", "4"), ("9007199254740993", "9007199254740993"), ("-1405123841946871899", "-1405123841946871899"),
     ('""', ""), ('"a\\u0000b"', "a\x00b"), ('"\\ud83d\\ude00"', "\U0001f600"), ("9" * 4400, "9" * 4400)],
    ids=range(7),
)  # fmt: skip
def test_ids_are_text_whatever_they_were(served: str, stored: str) -> None:
    # Red when numbers go through float or through Python's int, which refuses 4,400 digits.
    page = parse_page(f'{{"results":[{{"$distinct_id":{served}}}]}}'.encode(), 0)
    assert [(row.key, row.content) for row in page.rows] == [(stored, None)]


@pytest.mark.parametrize(
    "row",
    [
        '{"$distinct_id":"a","$properties":{"n":1.10,"n":12345678901234567890}}',
        '{ "$properties" : { "x" : 1e400 } , "other":[{"$distinct_id":"no"}], "$distinct_id":"\\u00e9\\ud83d\\ude00" }',
        '{"$distinct_id":"a","$distinct_id":"b","$properties":{"first":1},"$properties":{"last":2}}',
        '{"$distinct_id":"","$properties":{"$distinct_id":"x","$properties":{}}}',
        '{"$distinct_id":"a\\ud800","$properties":{"half":"\\udc00"}}',
        '{"$distinct_id":"a","$properties":null}',
        '{"$distinct_id":"a","$properties":[]}',
        '{"$distinct_id":"a","$properties":"{}"}',
        '{"$distinct_id":"a"}',
        '{"$distinct_id":12,"$properties":{}}',
        '{"$DISTINCT_ID":"a","$properties":{}}',
    ],
    ids=range(11),
)
def test_a_row_is_the_same_whether_its_page_is_read_at_once_or_row_by_row(row: str) -> None:
    at_once = parse_page(f'{{"results":[{row}]}}'.encode(), 1)
    by_row = parse_page(f'{{"results":[{row},"no profile"]}}'.encode(), 1)
    assert at_once.rows == by_row.rows
    assert at_once.repairs == by_row.repairs
    assert [each.reason for each in at_once.rejected] == [each.reason for each in by_row.rejected][:-1]


@pytest.mark.parametrize("total", ["null", '"many"', "1.5", "-3", "1" * 19, "[]"])
def test_a_total_that_is_no_count_is_no_total(total: str) -> None:
    assert parse_page(f'{{"results":[],"total":{total}}}'.encode(), 0).total is None


@pytest.mark.parametrize(
    ("told", "session_id"),
    [(None, None), ("", None), (" ", None), (1.5, None), (True, None), (["s"], None), ({"s": 1}, None),
     ("s" * 1001, None), (5, "5"), (10**40, str(10**40)), ("5", "5"), ("s s", "s s"), ("s" * 1000, "s" * 1000)],
    ids=range(13),
)  # fmt: skip
def test_what_is_a_session(told: Any, session_id: str | None) -> None:
    assert parse_page(body(session_id=told), 1).session_id == session_id


@pytest.mark.parametrize("told", ["s3cret-marker", "of czNjcmV0LW1hcmtlcg==", "s3cret%2dmarker"])
def test_a_session_that_holds_the_secret_is_none(told: str) -> None:
    """Red when it is kept: it would be in staged files and in metadata."""
    assert parse_page(body(session_id=told), 1, texts=ServerText("s3cret-marker")).session_id is None


@pytest.mark.parametrize(
    ("answer", "asked", "says"),
    [
        (body(session_id="s"), {"session_id": "s"}, None),
        (body(session_id=None), {"session_id": "s"}, None),  # as Mixpanel's last page may say
        (b'{"results":[]}', {"session_id": "s", "project_id": "7"}, None),
        (body(session_id=5), {"session_id": "5"}, None),
        (body(session_id="5"), {"session_id": "5"}, None),
        (body(session_id="t"), {"session_id": "s"}, "page 1: the server sent a page of another session"),
        (body(session_id=6), {"session_id": "5"}, "a page of another session"),
        (body(session_id="S"), {"session_id": "s"}, "a page of another session"),
        (body(page=1), {}, None),
        (body(page="1"), {}, None),
        (body(page=None), {}, None),
        (body(page="2"), {}, "sent page 2 instead"),
        (body(page=0), {}, "sent page 0 instead"),
        (body(page=-1), {}, "sent page -1 instead"),
        (body(page=10**30), {}, "sent page 10000000000000000000 instead"),
        (body(project_id=7), {"project_id": "7"}, None),
        (body(project_id="7"), {"project_id": "007"}, None),
        (body(project_id="seven"), {"project_id": "7"}, None),
        (body(project_id=8), {"project_id": "7"}, "page 1: the server sent project 8 instead"),
    ],
    ids=range(19),
)
def test_a_page_of_another_request_is_not_the_one_asked_for(
    answer: bytes, asked: dict[str, Any], says: str | None
) -> None:
    """Red without the guard of each: the rows of another page, session or project are stored as this one's."""
    if says is None:
        parse_page(answer, 1, **asked)
        return
    with pytest.raises(MalformedPageError, match=says):
        parse_page(answer, 1, **asked)


def test_numbers_in_quotes_are_numbers() -> None:
    page = parse_page(body(total="35", page_size="10"), 1)
    assert (page.total, page.page_size) == (35, 10)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        (ProfileQuery(where="  "), "where is empty"),
        (ProfileQuery(cohort_id=0), "cohort_id must be a positive number, not 0"),
        (ProfileQuery(include_all_users=True), "include_all_users only makes sense with cohort_id"),
        (ProfileQuery(output_properties=()), "output_properties must name at least one"),
        (ProfileQuery(output_properties=("a", " ")), "output_properties must name at least one"),
        (ProfileQuery(page_size=0), "page_size must be 1 or more, not 0"),
        (ProfileQuery(data_group_id="1"), "data_group_id: groups are an asset of their own now"),
        (ProfileQuery(distinct_ids=()), "distinct_ids must name at least one id"),
        (ProfileQuery(distinct_ids=("a", " ")), "and no empty ones"),
        (ProfileQuery(as_of_timestamp=1), "as_of_timestamp only makes sense with behaviors"),
        (ProfileQuery(behaviors="x", where="w", as_of_timestamp=1), "behaviors must be a JSON list such as"),
        (ProfileQuery(behaviors="[]", where="w", as_of_timestamp=1), "behaviors must be a JSON list such as"),
        (ProfileQuery(behaviors="[{}]", as_of_timestamp=1), "behaviors choose nobody by themselves"),
        (ProfileQuery(behaviors="[{}]", where="w"), "behaviors need as_of_timestamp"),
        (
            ProfileQuery(behaviors="[{}]", where="w", as_of_timestamp=1, cohort_id=1),
            "behaviors and cohort_id cannot be combined",
        ),
    ],
    ids=range(15),
)
def test_wrong_settings_are_named(query: ProfileQuery, says: str) -> None:
    with pytest.raises(ConfigurationError, match=says):
        query.check()


def test_what_is_asked() -> None:
    query = ProfileQuery(where='properties["a"] == "b"', cohort_id=5, output_properties=("$name", "ü"), page_size=7)
    query.check()
    first = page_request("https://host/api/query", query, 0, None)
    assert (first.method, first.url, first.what) == ("POST", "https://host/api/query/engage", "page 0")
    assert first.form == {
        "where": 'properties["a"] == "b"',
        "filter_by_cohort": '{"id": 5}',
        # Mixpanel's default would invent rows for ids without a profile.
        "include_all_users": "false",
        "output_properties": '["$name", "\\u00fc"]',
        "page_size": "7",
    }
    later = page_request("https://host/api/query", ProfileQuery(data_group_id="-14"), 3, "s")
    assert later.form == {"data_group_id": "-14", "session_id": "s", "page": "3"}
