"""Which groups, and what of them: what is asked for, as settings."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mixpanel_assets.client.property_filter import NO_FILTER, PropertyFilter
from mixpanel_assets.errors import ConfigurationError
from mixpanel_assets.streams.snapshot.stream import SnapshotQuery, check_output_properties, check_page_size

# As Mixpanel shows it: another spelling of the same number would be another part of the table.
_NUMBER = re.compile(r"0|-?[1-9][0-9]{0,18}")
_MOST = 2**63
_MOST_NAME_CHARACTERS = 255


@dataclass(frozen=True)
class GroupsQuery(SnapshotQuery):
    """Which groups, and what of them.

    Attributes:
        groups: Pairs of a name, the group key as Mixpanel's UI has it, and the `data_group_id`, a signed 64-bit integer
            as text.
        where: Filter expression, such as `properties["seats"] > 10`.
        output_properties: Only these properties.
        page_size: Groups per page wished for; the server's answer decides.
        kept: Which of the properties that come are kept.
        source: Whose groups, as the client says; None where it was not noted.
    """

    groups: tuple[tuple[str, str], ...] = ()
    where: str | None = None
    output_properties: tuple[str, ...] | None = None
    page_size: int | None = None
    kept: PropertyFilter = NO_FILTER
    source: str | None = None

    def check(self) -> None:
        """Refuse what names no group, or one twice.

        Raises:
            ConfigurationError: one line that names the setting.
        """
        super().check()
        for name, number in self.groups:
            if not name.strip() or len(name) > _MOST_NAME_CHARACTERS:
                raise ConfigurationError(
                    f"groups: a name has 1 to {_MOST_NAME_CHARACTERS} characters, not {name!r:.80}"
                )
            if not _NUMBER.fullmatch(number) or not -_MOST <= int(number) < _MOST:
                raise ConfigurationError(
                    f"groups: data_group_id of {name!r} must be a whole number of 64 bits as Mixpanel shows it, such "
                    f"as -1405123841946871899, not {number!r:.80}"
                )
        for what, given in (("name", self.names), ("data_group_id", self.numbers)):
            twice = next((each for each in given if given.count(each) > 1), None)
            if twice is not None:
                raise ConfigurationError(f"groups: {what} {twice!r} is there twice")
        if self.where is not None and not self.where.strip():
            raise ConfigurationError("where is empty: leave it out to fetch all groups")
        check_output_properties(self.output_properties)
        check_page_size(self.page_size)

    @property
    def names(self) -> list[str]:
        """The group keys."""
        return [name for name, _ in self.groups]

    @property
    def numbers(self) -> list[str]:
        """The `data_group_id` of each."""
        return [number for _, number in self.groups]

    @property
    def filter_text(self) -> str | None:
        """What narrows the query down; None if nothing does."""
        return self.where

    @property
    def named_properties(self) -> Sequence[str]:
        """Those of output_properties."""
        return self.output_properties or ()

    @property
    def sql_values(self) -> Mapping[str, object]:
        """What each group is called."""
        return {"group_names": self.names, "group_numbers": self.numbers}
