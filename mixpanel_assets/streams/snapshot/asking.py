"""Asking for a page, and once more where what came may be a fault."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from mixpanel_assets.client.retry import Retrier
from mixpanel_assets.errors import MixpanelError
from mixpanel_assets.storage.staging import disk_errors
from mixpanel_assets.streams.snapshot import page_rules
from mixpanel_assets.streams.snapshot.page import Page


@dataclass(frozen=True)
class Asked:
    """What asking for a page came to: the page if it came, of two answers the better one; and what failed at last."""

    page: Page | None
    error: MixpanelError | None = None

    def came(self) -> Page:
        """The page, or its error raised."""
        if self.page is None:
            raise self.error or MixpanelError("nothing came")
        return self.page


def ask(
    fetch: Callable[[Path], Page],
    doubt_of: Callable[[Page], str | None],
    retrier: Retrier,
    place: Path,
) -> Asked:
    """A page; one that may be a fault is asked for once more."""
    try:
        with disk_errors(place):
            came = fetch(place)
    except MixpanelError as error:
        return Asked(None, error)
    doubt = doubt_of(came)
    if doubt is None or not retrier.may_ask_once_more(doubt):
        return Asked(came)
    try:
        with disk_errors(place):
            again = fetch(place)
    except MixpanelError as error:
        return Asked(came, error)
    return Asked(again if doubt_of(again) is None else max(came, again, key=_worth))


def _worth(page: Page) -> tuple[bool, int]:
    """What makes an answer better than another one for the same page."""
    return page.page > 0 or not page_rules.lacks_session(page), page.served
