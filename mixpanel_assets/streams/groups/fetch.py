"""Page 0 is what the settings name; each further page is all profiles of one group, however many answers that is."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mixpanel_assets.client.client import MixpanelClient
from mixpanel_assets.client.project import refuse_other
from mixpanel_assets.client.retry import Retrier
from mixpanel_assets.errors import RestartError
from mixpanel_assets.streams.groups.query import GroupsQuery
from mixpanel_assets.streams.profiles.query import ProfileQuery
from mixpanel_assets.streams.profiles.spool import Spool
from mixpanel_assets.streams.profiles.whole_query import WholeQuery, told_as_part
from mixpanel_assets.streams.snapshot.page import Page, Parts, RejectedRow, Row


def fetch_page(
    client: MixpanelClient,
    query: GroupsQuery,
    page: int,
    session_id: str | None,
    retrier: Retrier,
    accept: Callable[[Page], None],
    folder: Path,
) -> Page:
    """The groups of the settings, without a request; or all profiles of the one whose data_group_id is `session_id`.

    Raises:
        MixpanelError: no good answer came, even after retries.
        ConfigurationError: the query was made for another project.
    """
    refuse_other(query.source, client.profiles_source)
    if page == 0:
        # Others stay as they are: that they are not named does not mean that Mixpanel has them no longer.
        return Page(0, None, None, None, (), (), 0, parts=Parts(tuple(query.numbers), are_all=False))
    group = session_id or ""
    wanted = ProfileQuery(
        where=query.where,
        output_properties=query.output_properties,
        page_size=query.page_size,
        data_group_id=group,
        kept=query.kept,
        source=query.source,
    )
    with told_as_part(page, f"group {dict(zip(query.numbers, query.names, strict=True)).get(group, group)}"):
        came = _fullest(client, wanted, retrier, folder)
    return Page(page, None, None, None, came.rows, came.rejected, came.repairs, part=group, missing=came.missing)


@dataclass(frozen=True)
class _Came:
    rows: Spool[Row]
    rejected: Spool[RejectedRow]
    repairs: int
    missing: int


def _fullest(client: MixpanelClient, wanted: ProfileQuery, retrier: Retrier, folder: Path) -> _Came:
    """All that came of a group, asked for once more where its session is lost or rows are missing."""
    try:
        first = _read(WholeQuery(client, wanted, retrier, folder), folder)
    except RestartError:
        return _read(WholeQuery(client, wanted, retrier, folder), folder)
    if not first.missing:
        return first
    try:
        again = _read(WholeQuery(client, wanted, retrier, folder), folder)
    except RestartError:
        return first
    return min(first, again, key=lambda came: came.missing)


def _read(query: WholeQuery, folder: Path) -> _Came:
    rows, rejected, repairs = Spool(Row, folder), Spool(RejectedRow, folder), 0
    for page in query.pages():
        before = len(rows) + len(rejected)
        rows.add(page.rows)
        # Its place among all that came of the group.
        rejected.add(RejectedRow(before + row.row_number, row.reason, row.text) for row in page.rejected)
        repairs += page.repairs
    return _Came(rows, rejected, repairs, query.missing)
