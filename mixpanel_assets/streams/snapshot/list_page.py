"""A list endpoint as the one page of a snapshot: a JSON array of objects, bare or as a member of the answer."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mixpanel_assets.client import json_text
from mixpanel_assets.client.answer import BrokenAnswerError
from mixpanel_assets.client.apis import QUERIES
from mixpanel_assets.client.client import MixpanelClient
from mixpanel_assets.client.http import Request, error_in_body
from mixpanel_assets.client.property_filter import NO_FILTER, PropertyFilter
from mixpanel_assets.client.retry import Retrier
from mixpanel_assets.client.server_text import ServerText
from mixpanel_assets.errors import MixpanelError
from mixpanel_assets.streams.snapshot.page import Page, RejectedRow, Row
from mixpanel_assets.streams.snapshot.stream import FetchPage, SnapshotQuery


@dataclass(frozen=True)
class ListQuery(SnapshotQuery):
    """The whole list, of one project."""

    kept: PropertyFilter = NO_FILTER
    source: str | None = None


class MalformedListError(BrokenAnswerError):
    """An answer came under HTTP 200 and is no list."""


# The rows of the item at a place of the list, which is one unless it says more.
RowsOf = Callable[[int, json_text.Text, ServerText], Iterable[Row | RejectedRow]]
# What a request waits for before it starts, of the client that sends it.
Turn = Callable[[MixpanelClient], AbstractContextManager[None]]


def fetch_list(
    request: Callable[[MixpanelClient, Any], Request],
    rows_of: RowsOf,
    member: str | None = None,
    turn: Turn = lambda client: nullcontext(),
) -> FetchPage:
    """How the list is asked for, until it is good.

    Args:
        request: Makes the request, out of a query of the stream's own type; one of the Query API is counted.
        rows_of: Makes rows of an item, such as `keyed_by("id")`.
        member: The member of the answer that is the list; None: the answer is the list.
        turn: In what the request starts, where it may have to wait.
    """

    def fetch_page(
        client: MixpanelClient,
        query: Any,
        page: int,
        session_id: str | None,
        retrier: Retrier,
        accept: Callable[[Page], None],
        folder: Path,
    ) -> Page:
        asked = request(client, query)
        account = client.queries if asked.api is QUERIES else None

        def attempt() -> Page:
            with turn(client):
                sent = client.send(asked, account, retrier)
            with sent as answer:
                body = b"".join(answer.blocks(client.limits.max_page_mb, "raise max_page_mb", framed=False))
            return read_list(body, rows_of, member, asked.what, client.texts)

        return retrier.call(attempt)

    return fetch_page


def keyed_by(key: str) -> RowsOf:
    """One row for each item, an object whose member `key`, a text or a whole number, is the row's key."""
    return lambda number, item, texts: [_row(number, item, key, texts)]


def read_list(body: bytes, rows_of: RowsOf, member: str | None, what: str, texts: ServerText) -> Page:
    """Read a response body.

    Raises:
        MalformedListError: the body is not the whole list.
        MixpanelError: the body reports an error.
    """
    text, repairs = json_text.repaired(body)
    items = enumerate(_items(text, member, what, texts))
    rows = [row for number, item in items for row in rows_of(number, item, texts)]
    kept = tuple(row for row in rows if isinstance(row, Row))
    rejected = tuple(row for row in rows if isinstance(row, RejectedRow))
    # What is listed twice is one row. A page of one row more than there are is not full: no other follows.
    return Page(0, len(rows) + 1, len({row.key for row in kept}) + len(rejected), None, kept, rejected, repairs)


def _items(text: bytes, member: str | None, what: str, texts: ServerText) -> Iterable[json_text.Text]:
    if member is None and text.lstrip().startswith(b"["):
        try:
            return json_text.read_array(text)
        except ValueError as error:
            raise MalformedListError(f"{what}: the answer is not whole JSON ({len(text)} bytes): {error}") from None
    try:
        members = json_text.read_object(text)
    except ValueError as error:
        raise MalformedListError(f"{what}: the answer is not whole JSON ({len(text)} bytes): {error}") from None
    failure: MixpanelError | None = error_in_body(members, what, texts)
    if failure is not None:
        raise failure
    try:
        return json_text.read_array(members[member or ""])
    except (KeyError, ValueError):
        raise MalformedListError(f"{what}: the answer holds no list") from None


def _row(number: int, text: json_text.Text, key: str, texts: ServerText) -> Row | RejectedRow:
    content = bytes(text).decode()
    try:
        member = json_text.read_object(text).get(key)
    except ValueError:
        return RejectedRow(number, "not an object", texts.kept(content))
    named = None if member is None else json_text.read_string(member) or json_text.read_whole_number(member)
    return Row(named, content) if named else RejectedRow(number, f"no {key}", texts.kept(content))
