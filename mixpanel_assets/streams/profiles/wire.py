"""Profiles on the wire: how a page is asked for, and what a good page is.

A page that cannot be trusted (not JSON, an error under HTTP 200, no `results`, another page's number, session or
project) is an error here, so that it is asked for again like one that never came. Whether pages fit together is
snapshots.py's.

Source: Mixpanel's Engage query API (`POST {query}/engage`, form-encoded).
"""

from collections.abc import Collection, Iterator
from pathlib import Path

import msgspec

from mixpanel_assets.client import json_text
from mixpanel_assets.client.answer import TooLargeError
from mixpanel_assets.client.apis import QUERIES
from mixpanel_assets.client.http import Request, error_in_body
from mixpanel_assets.client.property_filter import NO_FILTER, PROFILE_ID, PropertyFilter, digest
from mixpanel_assets.client.request_limits import DEFAULT_LIMITS, MB
from mixpanel_assets.client.server_text import NO_SECRETS, ServerText
from mixpanel_assets.errors import TransientError
from mixpanel_assets.streams.profiles import page_split
from mixpanel_assets.streams.profiles.query import ProfileQuery
from mixpanel_assets.streams.profiles.spool import Spool
from mixpanel_assets.streams.snapshot.page import Page, RejectedRow, Row

# Mixpanel's have 17 characters. What is no id of a session would go out with every request, and into the metadata.
_MOST_SESSION_CHARACTERS = 1_000


# The only compression whose end can be told.
_GZIP = {"Accept-Encoding": "gzip"}


class MalformedPageError(TransientError):
    """A page came under HTTP 200 and is not what was asked for."""


class _UsualRow(msgspec.Struct, gc=False):
    """A row as Mixpanel sends it by the million."""

    distinct_id: str = msgspec.field(name="$distinct_id")
    properties: json_text.Text = msgspec.field(name="$properties")


_usual_rows = msgspec.json.Decoder(list[_UsualRow])


def page_request(query_url: str, query: ProfileQuery, page: int, session_id: str | None) -> Request:
    """The request for one page; pages after 0 need the session of page 0."""
    form = query.form()
    if session_id is not None:
        form |= {"session_id": session_id, "page": str(page)}
    brings = "profiles" if query.data_group_id is None else "groups"
    url, what = f"{query_url}/engage", f"page {page}"
    return Request(QUERIES, "POST", url, what=what, form=form, headers=_GZIP, brings=brings)


def parse_page(
    body: bytes,
    page: int,
    kept: PropertyFilter = NO_FILTER,
    salt: str = "",
    *,
    session_id: str | None = None,
    project_id: str | None = None,
    texts: ServerText = NO_SECRETS,
) -> Page:
    """Read a response body, and of the properties what may be kept. `session_id` and `project_id`: of its request;
    `texts`: those of its server.

    Raises:
        MalformedPageError: the body is not a whole page, or not the one that was asked for.
        MixpanelError: the body reports an error.
    """
    what = f"page {page}"
    body, repairs = json_text.repaired(body)
    try:
        members = json_text.read_object(body)
    except ValueError as error:
        raise MalformedPageError(f"{what}: the answer is not whole JSON ({len(body)} bytes): {error}") from None
    failure = error_in_body(members, what, texts)
    if failure is not None:
        raise failure
    try:
        rows = _rows(members["results"], texts)
    except (KeyError, ValueError):
        raise MalformedPageError(f"{what}: the answer has no results") from None
    if not kept.keeps_all:
        rows = [_kept(row, kept, salt) for row in rows]
    profiles = tuple(row for row in rows if isinstance(row, Row))
    rejected = tuple(row for row in rows if isinstance(row, RejectedRow))
    return _page(members, page, session_id, project_id, texts, (profiles, rejected, repairs))


def read_page(
    blocks: Iterator[bytes],
    page: int,
    kept: PropertyFilter = NO_FILTER,
    salt: str = "",
    *,
    session_id: str | None = None,
    project_id: str | None = None,
    texts: ServerText = NO_SECRETS,
    folder: Path | None = None,
    most_row_mb: int = DEFAULT_LIMITS.max_line_mb,
) -> Page:
    """Read a response body while it comes, like `parse_page`. The rows of a page of more than a few megabytes go to a
    file without a name in `folder`, a few at a time and what may be kept of them; `most_row_mb`: how long one may be.

    Raises:
        MalformedPageError: the body is not a whole page, or not the one that was asked for.
        TooLargeError: a row is longer than is allowed.
        MixpanelError: the body reports an error.
        OSError: the disk takes no more.
    """
    what = f"page {page}"
    begun = b""
    while len(begun) <= page_split.AT_ONCE_BYTES:
        block = next(blocks, None)
        if block is None:
            return parse_page(begun, page, kept, salt, session_id=session_id, project_id=project_id, texts=texts)
        begun += block
    split = page_split.PageSplit(begun, blocks, most_row_mb * MB)
    del begun, block
    profiles, rejected, repairs = Spool(Row, folder), Spool(RejectedRow, folder), 0

    def read(run: bytes) -> tuple[list[Row | RejectedRow], int]:
        text, mended = json_text.repaired(run)
        return _rows(text, texts, len(profiles) + len(rejected)), mended

    try:
        for rows, mended in split.runs(read):
            repairs += mended
            if not kept.keeps_all:
                rows = [_kept(row, kept, salt) for row in rows]
            profiles.add(row for row in rows if isinstance(row, Row))
            rejected.add(row for row in rows if isinstance(row, RejectedRow))
            del rows
    except page_split.RowTooLargeError:
        raise TooLargeError(
            f"{what}: a row is longer than {most_row_mb} MB: is this a page? If it is, raise max_line_mb"
        ) from None
    except ValueError as error:
        raise MalformedPageError(
            f"{what}: the answer is not whole JSON (in {split.bytes_read} bytes): {error}"
        ) from None
    failure = error_in_body(split.members, what, texts)
    if failure is not None:
        raise failure
    return _page(split.members, page, session_id, project_id, texts, (profiles, rejected, repairs))


def _page(
    members: dict[str, json_text.Text],
    page: int,
    session_id: str | None,
    project_id: str | None,
    texts: ServerText,
    content: tuple[Collection[Row], Collection[RejectedRow], int],
) -> Page:
    what = f"page {page}"
    _refuse_another(members, "page", str(page), what)
    _refuse_another(members, "project_id", project_id, what)
    served_session = _session_id(members, texts)
    if session_id is not None and served_session not in (None, session_id):
        raise MalformedPageError(f"{what}: the server sent a page of another session")
    rows, rejected, repairs = content
    return Page(
        page=page,
        page_size=_number(members, "page_size"),
        total=_number(members, "total"),
        session_id=served_session,
        rows=rows,
        rejected=rejected,
        repairs=repairs,
    )


def _rows(results: json_text.Text | bytes, texts: ServerText, first: int = 0) -> list[Row | RejectedRow]:
    """The rows of a page: at once if all are usual ones (3 ms for a page of 700 kB), else each for itself (8 ms).

    Raises:
        ValueError: not an array.
    """
    try:
        usual = [(row.distinct_id, bytes(row.properties).decode()) for row in _usual_rows.decode(results)]
    except (ValueError, RecursionError):
        usual = []
    if usual and all(properties.startswith("{") for _, properties in usual):
        return [Row(distinct_id, properties) for distinct_id, properties in usual]
    return [_profile(number, text, texts) for number, text in enumerate(json_text.read_array(results), first)]


def _profile(number: int, text: json_text.Text, texts: ServerText) -> Row | RejectedRow:
    try:
        row = json_text.read_object(text)
    except ValueError:
        return _rejected(number, "not an object", text, texts)
    if "$distinct_id" not in row:
        return _rejected(number, "no $distinct_id", text, texts)
    distinct_id = json_text.read_string(row["$distinct_id"])
    if distinct_id is None:
        distinct_id = json_text.read_whole_number(row["$distinct_id"])
    if distinct_id is None:
        return _rejected(number, "$distinct_id is neither text nor a whole number", text, texts)
    properties = bytes(row["$properties"]).decode() if "$properties" in row else "null"
    if properties == "null":
        return Row(distinct_id, None)
    if not properties.startswith("{"):
        return _rejected(number, "$properties is not an object", text, texts)
    return Row(distinct_id, properties)


def _kept(row: Row | RejectedRow, kept: PropertyFilter, salt: str) -> Row | RejectedRow:
    if isinstance(row, RejectedRow):
        return RejectedRow(row.row_number, row.reason, "withheld, as it may hold properties that must not be kept")
    distinct_id = digest(row.key.encode(), salt) if PROFILE_ID in kept.hashed else row.key
    properties = None if row.content is None else kept.filtered(row.content.encode(), salt).decode()
    return Row(distinct_id, properties)


def _rejected(number: int, reason: str, text: json_text.Text, texts: ServerText) -> RejectedRow:
    return RejectedRow(number, reason, texts.kept(bytes(text).decode()))


def _refuse_another(members: dict[str, json_text.Text], name: str, asked: str | None, what: str) -> None:
    """Refuse a page that says it is of another number or project; what it says in no number tells nothing."""
    said = _digits(members, name)
    if asked is not None and said is not None and said.lstrip("0") != asked.lstrip("0"):
        raise MalformedPageError(f"{what}: the server sent {name.removesuffix('_id')} {said[:20]} instead")


def _session_id(members: dict[str, json_text.Text], texts: ServerText) -> str | None:
    """The session of a page, as text whatever it was; what could be none (null, empty, absurdly long) is None.

    So is what holds the credentials, as it would be noted and shown.
    """
    member = members.get("session_id", json_text.Text(b"null"))
    session_id = json_text.read_string(member) or json_text.read_whole_number(member)
    usable = session_id is not None and session_id.strip() and len(session_id) <= _MOST_SESSION_CHARACTERS
    return session_id if usable and texts.redacted(str(session_id)) == session_id else None


def _number(members: dict[str, json_text.Text], name: str) -> int | None:
    """A count, if the answer has one; more digits than any count of ours are no count."""
    digits = _digits(members, name)
    return int(digits) if digits is not None and digits.isdecimal() and len(digits) < 19 else None


def _digits(members: dict[str, json_text.Text], name: str) -> str | None:
    """A whole number of an answer, as its digits, also where it stands in quotes."""
    member = members.get(name, json_text.Text(b"null"))
    quoted = json_text.read_string(member)
    return json_text.read_whole_number(member if quoted is None else json_text.Text(quoted.encode()))
