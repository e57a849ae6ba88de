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
from mixpanel_assets.streams.profiles.query import ProfileQuery
from mixpanel_assets.streams.profiles.whole_query import WholeQuery, told_as_part
from mixpanel_assets.streams.snapshot.list_page import fetch_list, keyed_by
from mixpanel_assets.streams.snapshot.page import Page, Row


class ShortCohortError(MixpanelError):
    """Fewer members came than Mixpanel says that there are."""


# As Mixpanel writes it: int() would take "007" for another cohort's id, and end the sync at thousands of digits.
_NUMBER = re.compile(r"[1-9][0-9]{0,18}")
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
    with told_as_part(page, f"cohort {cohort}"):
        rows = _members(client, query, cohort, retrier, folder)
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
        return _rows(WholeQuery(client, wanted, retrier, folder))
    except (RestartError, ShortCohortError):
        return _rows(WholeQuery(client, wanted, retrier, folder))


def _rows(query: WholeQuery) -> list[Row]:
    ids: dict[str, None] = {}
    for page in query.pages():
        if page.rejected:
            raise FatalError(
                f"page {page.page}: {len(page.rejected)} of {page.served} members have no id that can be read"
            )
        ids |= dict.fromkeys(row.key for row in page.rows)
    if query.missing:
        raise ShortCohortError(f"page 0: {query.distinct} of {query.total} members came")
    return [Row(each, None) for each in ids]
