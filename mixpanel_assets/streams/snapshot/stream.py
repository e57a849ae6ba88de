"""What a stream is that comes as a whole, in pages: its names, its table, what can be asked for, and how a page is.

Everything else about such a stream is written once, in this folder.
"""

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import msgspec

from mixpanel_assets.client.client import MixpanelClient
from mixpanel_assets.client.property_filter import NO_FILTER, PropertyFilter
from mixpanel_assets.client.retry import Retrier
from mixpanel_assets.errors import ConfigurationError
from mixpanel_assets.storage.columns import SYNCED_AT, Column
from mixpanel_assets.streams.snapshot.page import Page


class SnapshotQuery:
    """What is asked for; a stream's own is a frozen dataclass of this class.

    Attributes:
        kept: Which of the properties that come are kept.
        source: Whose data, as the client says; None where it was not noted.
    """

    kept: PropertyFilter = NO_FILTER
    source: str | None = None

    @property
    def filter_text(self) -> str | None:
        """What narrows the query down, as JSON text; None if nothing does."""
        return None

    @property
    def named_properties(self) -> Sequence[str]:
        """Properties that are asked for by name."""
        return ()

    @property
    def is_incremental(self) -> bool:
        """Whether only rows are asked for that were seen since some moment: a sync of them removes none."""
        return False

    def seen_from(self, moment: datetime.datetime) -> "SnapshotQuery":
        """The same, of rows that were seen since a moment."""
        raise NotImplementedError

    @property
    def sql_values(self) -> Mapping[str, object]:
        """Parameters of the SQL by which the stream makes its further columns."""
        return {}

    def check(self) -> None:
        """Refuse what the server would misunderstand or silently ignore.

        Raises:
            ConfigurationError: one line that names the setting.
        """
        self.kept.check()


def check_page_size(size: int | None) -> None:
    """Refuse pages without a row; arguments and errors as of `SnapshotQuery.check`."""
    if size is not None and size < 1:
        raise ConfigurationError(f"page_size must be 1 or more, not {size}")


def check_output_properties(names: Sequence[str] | None) -> None:
    """Refuse a choice of no property, and of one without a name; errors as of `SnapshotQuery.check`."""
    if names is not None and not all(name.strip() for name in names or ("",)):
        raise ConfigurationError("output_properties must name at least one property, and no empty names")


class FetchPage(Protocol):
    """Asks for one page until it is good, or raises a MixpanelError; see streams/profiles/fetch.py."""

    def __call__(
        self,
        client: MixpanelClient,
        query: Any,  # of the stream's own type
        page: int,
        session_id: str | None,
        retrier: Retrier,
        accept: Callable[[Page], None],
        folder: Path,
    ) -> Page: ...


@dataclass(frozen=True, eq=False)
class SnapshotStream:
    """A stream that comes in pages.

    Attributes:
        name: Of the asset, the table, the staging folder.
        key: The column with a row's key, as the server names the row.
        content: The column with a row's JSON; None: a row is its key alone.
        columns: Further columns that are made out of a row.
        query: What is asked for, as a type.
        fetch_page: How a page is asked for.
        missing_table: The table of the pages that did not come.
        part: The column that says of which part a row is, for a stream whose page 0 says which parts there are and
            whose further pages hold one each. Keys are told apart within a part; a part that fails costs only itself.
        syncs_table: The table of when its last syncs began, of a stream that can be asked for what was seen since.
        history_table: The table of what its rows were, which a setting begins; None: it has none.
        guards_parts: Whether no part may lose more rows than `max_removed_fraction`; else all together.
        asks_first_page: Whether page 0 is a request; the settings may say which parts there are.
        is_counted: Whether its requests count against the hour.
        changes_table: The table of the rows that came and went, of a stream in parts; None: it is not noted.
    """

    name: str
    key: Column
    content: Column | None
    query: type[SnapshotQuery]
    fetch_page: FetchPage
    missing_table: str
    columns: tuple[Column, ...] = ()
    part: Column | None = None
    changes_table: str | None = None
    syncs_table: str | None = None
    history_table: str | None = None
    guards_parts: bool = False
    asks_first_page: bool = True
    is_counted: bool = True

    def __post_init__(self) -> None:
        # msgspec crashes when threads look into a class for the first time together.
        msgspec.convert({}, self.query)

    @cached_property
    def table_columns(self) -> tuple[Column, ...]:
        """All columns of the table, in order."""
        given = [self.part, self.key, self.content, *self.columns, SYNCED_AT, FILTER]
        return tuple(column for column in given if column is not None)

    @property
    def row_key(self) -> tuple[str, ...]:
        """Names of the columns that tell rows apart."""
        return (self.key.name,) if self.part is None else (self.part.name, self.key.name)


FILTER = Column(
    "sync_filter",
    "VARCHAR",
    "The filter, as JSON, of the syncs that alone brought this row and may remove it; else NULL.",
)
