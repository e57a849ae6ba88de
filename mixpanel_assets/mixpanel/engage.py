"""Profiles on the wire: how a page is asked for, and what a good page is.

A page that cannot be trusted (not JSON, an error under HTTP 200, another page's number, no `results`) is an error
here, so that it is asked for again like one that never came. Whether pages fit together is plans.py's and the asset's.

Source: Mixpanel's Engage query API (`POST {query}/engage`, form-encoded).
"""

import json
from dataclasses import dataclass

from mixpanel_assets.errors import ConfigurationError, TransientError
from mixpanel_assets.mixpanel import json_text
from mixpanel_assets.mixpanel.http import Request, error_in_body


class MalformedPageError(TransientError):
    """A page came under HTTP 200 and is not what was asked for."""


@dataclass(frozen=True)
class ProfileQuery:
    """Which profiles, and what of them. None means: Mixpanel's default.

    Attributes:
        where: Filter expression, such as `properties["plan"] == "pro"`.
        cohort_id: Only members of this cohort.
        include_all_users: With a cohort: also ids that have no profile.
        output_properties: Only these properties.
        page_size: Profiles per page wished for; the server's answer decides.
        data_group_id: Group profiles of this group instead of users; a signed 64-bit integer as text.
    """

    where: str | None = None
    cohort_id: int | None = None
    include_all_users: bool | None = None
    output_properties: tuple[str, ...] | None = None
    page_size: int | None = None
    data_group_id: str | None = None

    def check(self) -> None:
        """Refuse what Mixpanel would misunderstand or silently ignore.

        Raises:
            ConfigurationError: one line that names the setting.
        """
        if self.where is not None and not self.where.strip():
            raise ConfigurationError("where is empty: leave it out to fetch all profiles")
        if self.cohort_id is not None and self.cohort_id <= 0:
            raise ConfigurationError(f"cohort_id must be a positive number, not {self.cohort_id}")
        if self.include_all_users is not None and self.cohort_id is None:
            raise ConfigurationError("include_all_users only makes sense with cohort_id: set both or neither")
        if self.output_properties is not None and not all(name.strip() for name in self.output_properties or ("",)):
            raise ConfigurationError("output_properties must name at least one property, and no empty names")
        if self.page_size is not None and self.page_size < 1:
            raise ConfigurationError(f"page_size must be 1 or more, not {self.page_size}")
        if self.data_group_id is not None and not self.data_group_id.removeprefix("-").isdecimal():
            raise ConfigurationError("data_group_id must be a whole number, written as text")
        if self.data_group_id is not None and self.cohort_id is not None:
            raise ConfigurationError("data_group_id and cohort_id cannot be combined: cohorts hold users, not groups")

    def form(self) -> dict[str, str]:
        """The query as form fields."""
        form = {}
        if self.where is not None:
            form["where"] = self.where
        if self.cohort_id is not None:
            form["filter_by_cohort"] = json.dumps({"id": self.cohort_id})
            # Mixpanel's default is true, which invents rows for ids that have no profile.
            form["include_all_users"] = "true" if self.include_all_users else "false"
        if self.output_properties is not None:
            form["output_properties"] = json.dumps(list(self.output_properties))
        if self.page_size is not None:
            form["page_size"] = str(self.page_size)
        if self.data_group_id is not None:
            form["data_group_id"] = self.data_group_id
        return form


@dataclass(frozen=True)
class ProfileRow:
    """One profile; `properties` is the JSON text exactly as served, None if there was none."""

    distinct_id: str
    properties: str | None


@dataclass(frozen=True)
class RejectedRow:
    """A row that cannot be stored as a profile, or not as it came: its place on the page, why, and its text."""

    row_number: int
    reason: str
    text: str


@dataclass(frozen=True)
class EngagePage:
    """One page as the server sent it. `served` counts all its rows, those rejected included."""

    page: int
    page_size: int | None
    total: int | None
    session_id: str | None
    served: int
    rows: tuple[ProfileRow, ...]
    rejected: tuple[RejectedRow, ...]
    repaired: tuple[RejectedRow, ...]


def page_request(query_url: str, query: ProfileQuery, page: int, session_id: str | None) -> Request:
    """The request for one page; pages after 0 need the session of page 0."""
    form = query.form()
    if session_id is not None:
        form |= {"session_id": session_id, "page": str(page)}
    return Request("POST", f"{query_url}/engage", what=f"page {page}", form=form)


def parse_page(body: bytes, page: int) -> EngagePage:
    """Read a response body.

    Raises:
        MalformedPageError: the body is not a whole page, or not the one that was asked for.
        MixpanelError: the body reports an error.
    """
    what = f"page {page}"
    text = json_text.decode(body)
    try:
        members = json_text.read_object(text, arrays=("results",))
    except (ValueError, RecursionError) as error:
        raise MalformedPageError(f"{what}: the answer is not whole JSON ({len(body)} bytes): {error}") from None
    failure = error_in_body({name: member.value for name, member in members.items()}, what)
    if failure is not None:
        raise failure
    results = members["results"].value if "results" in members else None
    if not isinstance(results, list):
        raise MalformedPageError(f"{what}: the answer has no results")
    served_page = _whole_number(members, "page")
    if served_page not in (None, page):
        raise MalformedPageError(f"{what}: the server sent page {served_page} instead")
    return _page_of(members, results, page)


def _page_of(members: dict[str, json_text.Value], results: list[json_text.Value], page: int) -> EngagePage:
    rows: list[ProfileRow] = []
    rejected: list[RejectedRow] = []
    repaired: list[RejectedRow] = []
    for number, element in enumerate(results):
        row = _profile(element)
        if isinstance(row, str):
            rejected.append(RejectedRow(number, row, element.text))
            continue
        kept = ProfileRow(
            json_text.without_lone_surrogates(row.distinct_id),
            None if row.properties is None else json_text.without_lone_surrogates(row.properties),
        )
        if kept != row:
            repaired.append(
                RejectedRow(number, "stored with U+FFFD in place of text that is not Unicode", element.text)
            )
        rows.append(kept)
    session_id = members["session_id"].value if "session_id" in members else None
    return EngagePage(
        page=page,
        page_size=_whole_number(members, "page_size"),
        total=_whole_number(members, "total"),
        session_id=session_id if isinstance(session_id, str) and session_id else None,
        served=len(results),
        rows=tuple(rows),
        rejected=tuple(rejected),
        repaired=tuple(repaired),
    )


def _profile(element: json_text.Value) -> ProfileRow | str:
    """The profile of a row, or the reason why it is none."""
    if not isinstance(element.value, dict):
        return "not an object"
    found = json_text.read_object(element.text)
    distinct_id = found.get("$distinct_id")
    # Integers arrive as text (json_text), so a true str is an id as served or a whole number.
    if distinct_id is None or not isinstance(distinct_id.value, str):
        return "no $distinct_id" if distinct_id is None else "$distinct_id is neither text nor a whole number"
    properties = found.get("$properties")
    if properties is None or properties.value is None:
        return ProfileRow(distinct_id.value, None)
    if not isinstance(properties.value, dict):
        return "$properties is not an object"
    return ProfileRow(distinct_id.value, properties.text)


def _whole_number(members: dict[str, json_text.Value], name: str) -> int | None:
    value = members[name].value if name in members else None
    return int(value) if isinstance(value, str) and value.isdecimal() and len(value) < 19 else None
