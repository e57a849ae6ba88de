"""All profiles of one query, its pages one after the other: what a stream in parts asks for in one step."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mixpanel_assets.client.client import MixpanelClient
from mixpanel_assets.client.retry import Retrier
from mixpanel_assets.errors import FatalError, MixpanelError, RestartError
from mixpanel_assets.streams.profiles.fetch import fetch_page
from mixpanel_assets.streams.profiles.query import ProfileQuery
from mixpanel_assets.streams.snapshot import page_rules
from mixpanel_assets.streams.snapshot.page import Page

_PAGE = re.compile(r"^page \d+: ")


class WholeQuery:
    """One session, from page 0 to its end; what is known of all its rows is told once its pages have been read."""

    def __init__(self, client: MixpanelClient, query: ProfileQuery, retrier: Retrier, folder: Path) -> None:
        self._client, self._query, self._retrier, self._folder = client, query, retrier, folder
        # Hashes: a million ids as text would take 100 MB.
        self._seen: set[int] = set()
        self._rejected = 0
        self._total: int | None = None

    def pages(self) -> Iterator[Page]:
        """The pages in order.

        Raises:
            RestartError: the session is lost, or was cut anew, or a page repeats others.
            MixpanelError: a page did not come.
        """
        first = came = self._ask(0, None)
        self._total, size, page = first.total, page_rules.page_size_of(first), 1
        yield first
        while self._goes_on(came, page, size):
            if first.session_id is None:
                raise FatalError("page 0: the answer names no session_id, though more pages follow")
            known = self.distinct
            came = self._ask(page, first.session_id)
            page_rules.check_page_size(came, size)
            if came.served and self.distinct == known:
                raise RestartError(f"page {page}: the server keeps sending the rows of another page")
            if page == 1 and self._total == size and came.served:
                self._total = None
            yield came
            page += 1

    @property
    def total(self) -> int | None:
        """Rows that the server reports."""
        return self._total

    @property
    def distinct(self) -> int:
        """Different rows that came."""
        return len(self._seen)

    @property
    def missing(self) -> int:
        """Rows that it reports and that did not come."""
        return max(0, (self._total or 0) - self.distinct - self._rejected)

    def _ask(self, page: int, session_id: str | None) -> Page:
        came = fetch_page(self._client, self._query, page, session_id, self._retrier, folder=self._folder)
        self._seen.update(hash(row.key) for row in came.rows)
        self._rejected += len(came.rejected)
        return came

    def _goes_on(self, came: Page, page: int, size: int) -> bool:
        """Whether another page may follow the one that came."""
        if not came.served or self._total is None:
            return came.served >= size
        # Mixpanel's documentation words `total` as the rows of one answer: page 1 shows whether it is that.
        return page * size < self._total or (page == 1 and self._total == size and came.session_id is not None)


@contextmanager
def told_as_part(page: int, part: str) -> Iterator[None]:
    """Errors of a query's pages as those of the page that is one part: `part` says which."""
    try:
        yield
    except MixpanelError as error:
        # Its words are of the answer, whose page this is not.
        text = _PAGE.sub("", str(error))
        # A lost session is this part's alone.
        kind = FatalError if isinstance(error, RestartError) else type(error)
        raise kind(f"page {page}: {part}: {text}") from None
