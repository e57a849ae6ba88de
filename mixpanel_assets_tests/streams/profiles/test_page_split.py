"""Pages that are too large for memory: taken apart while they come, into the same rows as at once."""

import json
import logging
import random
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mixpanel_assets.client.answer import TooLargeError
from mixpanel_assets.client.client import MixpanelClient
from mixpanel_assets.client.property_filter import PropertyFilter
from mixpanel_assets.client.retry import RetryPolicy
from mixpanel_assets.errors import MixpanelError, TransientError
from mixpanel_assets.sandbox import Limits, Population, Sandbox
from mixpanel_assets.sandbox.hostile import MEMBERS
from mixpanel_assets.settings import project
from mixpanel_assets.storage.staging import LocalStaging
from mixpanel_assets.streams.profiles import page_split
from mixpanel_assets.streams.profiles.fetch import fetch_page
from mixpanel_assets.streams.profiles.query import ProfileQuery
from mixpanel_assets.streams.profiles.stream import PROFILE_PAGES
from mixpanel_assets.streams.profiles.wire import MalformedPageError, parse_page, read_page
from mixpanel_assets.streams.snapshot.page import Page
from mixpanel_assets.streams.snapshot.staged import SnapshotFolder

ROWS = [
    *(f'{{"$distinct_id":"{n}","$properties":{{{member}}}}}' for n, member in enumerate(MEMBERS)),
    '{"$distinct_id":"n","$properties":{"cart":[{"a":1},{"$distinct_id":"inner"},{"$properties":{}}],"x":"]},{"}}',
    '{"$properties":{"a":1},"$distinct_id":"other order"}',
    '{ "$distinct_id" : 7 , "$properties" : { } }',
    '{"$distinct_id":"none"}',
    '{"$properties":{}}',
    "7",
    "null",
    '"},{\\"$distinct_id\\":"',
    "[[]]",
]


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a few hundred bytes were a large page."""
    monkeypatch.setattr(page_split, "AT_ONCE_BYTES", 300)


def said(page: Page) -> tuple[Any, ...]:
    rows, rejected = list(page.rows), list(page.rejected)
    assert (len(page.rows), len(page.rejected)) == (len(rows), len(rejected))
    return page.page, page.page_size, page.total, page.session_id, rows, rejected, page.repairs


def in_blocks(body: bytes, size: int) -> Iterator[bytes]:
    return iter([body[start : start + size] for start in range(0, len(body), size)])


def a_body(rows: list[str], separator: str = ",", more: str = "") -> bytes:
    head = '{"page":1,"page_size":9,"results":['
    tail = f'],"session_id":"s","status":"ok"{more},"total":30}}'
    return (head + separator.join(rows) + tail).encode(errors="surrogatepass")


@pytest.mark.usefixtures("small")
class TestSameAsAtOnce:
    @settings(deadline=None, max_examples=60)
    @given(seed=st.integers(0, 10**6), size=st.integers(1, 5000))
    @pytest.mark.parametrize("kept", [PropertyFilter(), PropertyFilter(exclude=("x", "price"))])
    def test_any_rows_in_any_blocks(self, seed: int, size: int, kept: PropertyFilter) -> None:
        """Red when a cut is believed without a look at what lies before it."""
        dice = random.Random(seed)
        # The first row says what rows begin with.
        body = a_body(["{}", *dice.choices(ROWS, k=dice.randint(20, 60))], dice.choice([",", " ,\n", ", "]))
        assert said(read_page(in_blocks(body, size), 1, kept, "salt")) == said(parse_page(body, 1, kept, "salt"))

    @pytest.mark.parametrize("more", ["", ',"x":[1,[2]],"y":{"results":[3]}', ',"a":"]}"'])
    def test_what_stands_behind_the_rows_is_no_row(self, more: str) -> None:
        body = a_body(ROWS * 3, more=more)
        assert said(read_page(in_blocks(body, 100), 1)) == said(parse_page(body, 1))

    def test_a_mark_and_bytes_that_are_no_text(self) -> None:
        body = b"\xef\xbb\xbf" + a_body(ROWS[:3] * 9).replace(b"long", b"l\xff\xe4ng", 40)
        assert said(read_page(in_blocks(body, 77), 1)) == said(parse_page(body, 1))

    @pytest.mark.parametrize("keep", [0.5, 0.9, 0.999])
    def test_a_page_that_is_cut_is_asked_for_again(self, keep: float) -> None:
        body = a_body(ROWS * 3)
        with pytest.raises(MalformedPageError, match="not whole JSON"):
            read_page(in_blocks(body[: int(len(body) * keep)], 500), 1)

    def test_another_page_or_an_error_is_none(self) -> None:
        with pytest.raises(MalformedPageError, match="sent page 1 instead"):
            read_page(in_blocks(a_body(ROWS), 500), 2)
        with pytest.raises(TransientError, match="answered 200 with an error: gone"):
            read_page(in_blocks(a_body(ROWS, more=',"error":"gone"'), 500), 1)

    def test_a_row_longer_than_is_allowed_is_refused(self) -> None:
        long = '{"$distinct_id":"a","$properties":{"x":"' + "a" * 3_000_000 + '"}}'
        with pytest.raises(TooLargeError, match=r"a row is longer than 1 MB: .*max_line_mb"):
            read_page(in_blocks(a_body([long]), 10_000), 1, most_row_mb=1)
        assert read_page(in_blocks(a_body([long]), 100_000), 1, most_row_mb=4).served == 1

    def test_it_is_staged_as_at_once(self, tmp_path: Path) -> None:
        body = a_body(ROWS * 3)
        folders = [SnapshotFolder(LocalStaging(tmp_path), PROFILE_PAGES, name) for name in ("a", "b")]
        results = [
            folder.write_page(page, 1, ())
            for folder, page in zip(folders, (parse_page(body, 1), read_page(in_blocks(body, 99), 1)), strict=True)
        ]
        assert results[0] == results[1]
        for name in ("rows_file", "rejected_file"):
            first, second = (getattr(folder, name)(1).read_bytes() for folder in folders)
            assert first == second


def test_a_large_page_takes_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Red when the body is joined before it is read: 60 MB of a page take 300 MB."""
    row = json.dumps({"$distinct_id": "a" * 20, "$properties": {"text": "b" * 3000}})
    whole = (b"," + row.encode()) * 100

    def blocks() -> Iterator[bytes]:
        yield b'{"page":0,"results":[' + row.encode()
        for _ in range(200):
            yield whole
        yield b'],"status":"ok"}'

    tracemalloc.start()
    page = read_page(blocks(), 0, folder=tmp_path)
    SnapshotFolder(LocalStaging(tmp_path), PROFILE_PAGES, "s").write_page(page, 1, ())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert page.served == 20_001
    assert peak < 60_000_000


def test_a_large_page_over_http(monkeypatch: pytest.MonkeyPatch) -> None:
    with Sandbox(Population(30_000), page_size=20_000, limits=Limits(enforce=False)) as sandbox:
        for name, value in sandbox.environment.items():
            monkeypatch.setenv(name, value)
        client = MixpanelClient(project(), policy=RetryPolicy(max_attempts=1))
        try:
            page = fetch_page(client, ProfileQuery(), 0, None, client.retrier(logging.getLogger(__name__)))
        except MixpanelError as error:
            pytest.fail(str(error))
        assert (page.served, page.total) == (20_000, 30_000)
        assert len({row.key for row in page.rows}) == 20_000
        client.close()
