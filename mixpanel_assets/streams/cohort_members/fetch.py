"""Page 0 is the list of cohorts; each further page is the ids of one cohort's members, however many answers that is.

No property is asked for, and none that comes all the same is kept.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mixpanel_assets.client.apis import QUERIES
from mixpanel_assets.client.client import MixpanelClient
from mixpanel_assets.client.http import Request
from mixpanel_assets.client.property_filter import PropertyFilter
from mixpanel_assets.client.retry import Retrier
from mixpanel_assets.errors import FatalError, MixpanelError, RestartError
from mixpanel_assets.streams.cohort_members.choice import UNLISTED, chosen
from mixpanel_assets.streams.cohort_members.query import CohortMembersQuery
from mixpanel_assets.streams.profiles.fetch import fetch_page as fetch_profiles
from mixpanel_assets.streams.profiles.query import ProfileQuery
from mixpanel_assets.streams.snapshot import page_rules
from mixpanel_assets.streams.snapshot.list_page import fetch_list, keyed_by
from mixpanel_assets.streams.snapshot.page import Page, Row


class ShortCohortError(MixpanelError):
    """Fewer members came than Mixpanel says that there are."""


# As Mixpanel writes it: int() would take "007" for another cohort's id, and end the sync at thousands of digits.
_NUMBER = re.compile(r"[1-9][0-9]{0,18}")
_PAGE = re.compile(r"^page \d+: ")
_NO_PROPERTY = PropertyFilter(include=())


def fetch_page(
    client: MixpanelClient,
    query: CohortMembersQuery,
    page: int,
    session_id: str | None,
    retrier: Retrier,
    accept: Callable[[Page], None],
    folder: Path,
) -> Page:
    """The list of cohorts, or all members of the one that `session_id` names.

    Raises:
        MixpanelError: no good answer came, even after retries, or members are missing.
    """
    if page == 0:
        return _cohorts(client, query, retrier, accept, folder)
    cohort = session_id or ""
    try:
        rows = _members(client, query, cohort, retrier, folder)
    except MixpanelError as error:
        # Its words are of the answer, whose page this is not.
        text = _PAGE.sub("", str(error))
        # A lost session is this cohort's alone.
        kind = FatalError if isinstance(error, RestartError) else type(error)
        raise kind(f"page {page}: cohort {cohort}: {text}") from None
    return Page(page, None, None, None, rows, (), 0, part=cohort)


def _cohorts(
    client: MixpanelClient, query: CohortMembersQuery, retrier: Retrier, accept: Callable[[Page], None], folder: Path
) -> Page:
    listed = fetch_list(_list_request, keyed_by("id"))(client, query, 0, None, retrier, accept, folder)
    if listed.rejected:
        raise FatalError(f"page 0: {len(listed.rejected)} of {listed.served} cohorts have no id that can be read")
    return Page(0, None, None, None, (), (), listed.repairs, parts=chosen(query, listed.rows))


def _list_request(client: MixpanelClient, _: Any) -> Request:
    return Request(
        QUERIES, "POST", f"{client.project.query_url}/cohorts/list", what="page 0", form={}, brings="members of cohorts"
    )


def _members(
    client: MixpanelClient, query: CohortMembersQuery, cohort: str, retrier: Retrier, folder: Path
) -> list[Row]:
    """The ids of a cohort's members, each once; all are asked for once more where some are missing."""
    if cohort.startswith(UNLISTED):
        raise FatalError("page 0: Mixpanel lists no cohort of this number or name: choose another")
    if not _NUMBER.fullmatch(cohort):
        raise FatalError("page 0: its id is no number that members can be asked for by")
    wanted = ProfileQuery(
        cohort_id=int(cohort),
        include_all_users=query.include_all_users,
        output_properties=(),
        page_size=query.page_size,
        kept=query.kept.intersect(_NO_PROPERTY),
        source=query.source,
    )
    try:
        return _Session(client, wanted, retrier, folder).rows()
    except (RestartError, ShortCohortError):
        return _Session(client, wanted, retrier, folder).rows()


class _Session:
    """All pages of one query, one after the other."""

    def __init__(self, client: MixpanelClient, query: ProfileQuery, retrier: Retrier, folder: Path) -> None:
        self._client, self._query, self._retrier, self._folder = client, query, retrier, folder

    def rows(self) -> list[Row]:
        first = self._ask(0, None)
        ids = self._ids(first)
        size, page, came = page_rules.page_size_of(first), 1, first
        while came.served and (page * size < first.total if first.total is not None else came.served >= size):
            if first.session_id is None:
                raise FatalError("page 0: the answer names no session_id, though more members follow")
            came = self._ask(page, first.session_id)
            page_rules.check_page_size(came, size)
            ids |= self._ids(came)
            page += 1
        if first.total is not None and len(ids) < first.total:
            raise ShortCohortError(f"page 0: {len(ids)} of {first.total} members came")
        return [Row(each, None) for each in ids]

    def _ask(self, page: int, session_id: str | None) -> Page:
        came = fetch_profiles(self._client, self._query, page, session_id, self._retrier, folder=self._folder)
        if came.rejected:
            raise FatalError(f"page {page}: {len(came.rejected)} of {came.served} members have no id that can be read")
        return came

    def _ids(self, page: Page) -> dict[str, None]:
        return dict.fromkeys(row.key for row in page.rows)
