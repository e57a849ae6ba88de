"""Which profiles, and what of them: a query of the Engage API as its form."""

import datetime
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from mixpanel_assets.client.property_filter import NO_FILTER, PropertyFilter
from mixpanel_assets.errors import ConfigurationError
from mixpanel_assets.streams.snapshot.stream import SnapshotQuery, check_output_properties, check_page_size


@dataclass(frozen=True)
class ProfileQuery(SnapshotQuery):
    """Which profiles, and what of them. None means: Mixpanel's default.

    Attributes:
        where: Filter expression, such as `properties["plan"] == "pro"`.
        cohort_id: Only members of this cohort.
        distinct_ids: Only profiles of these ids.
        behaviors: What `where` may count, as JSON text: `[{"window": "30d", "name": "x", "event_selectors": [{"event":
            "Signup"}]}]`, for a `where` such as `(behaviors["x"] > 0)`.
        as_of_timestamp: With behaviors: the end of their windows, in seconds since 1970.
        include_all_users: With a cohort: also ids that have no profile.
        output_properties: Only these properties.
        page_size: Profiles per page wished for; the server's answer decides.
        data_group_id: Group profiles of this group instead of users, a signed 64-bit integer as text: mixpanel/groups
            asks for them, and mixpanel/profiles does no longer.
        seen_since: Only profiles that Mixpanel updated since then, by `$last_seen`: UTC, as 2026-01-31T12:00:00.
        kept: Which of the properties that come are kept.
        source: Whose profiles, as the client says; None where it was not noted.
    """

    where: str | None = None
    cohort_id: int | None = None
    distinct_ids: tuple[str, ...] | None = None
    behaviors: str | None = None
    as_of_timestamp: int | None = None
    include_all_users: bool | None = None
    output_properties: tuple[str, ...] | None = None
    page_size: int | None = None
    data_group_id: str | None = None
    seen_since: str | None = None
    kept: PropertyFilter = NO_FILTER
    source: str | None = None

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
        check_output_properties(self.output_properties)
        check_page_size(self.page_size)
        if self.data_group_id is not None:
            raise ConfigurationError(
                "data_group_id: groups are an asset of their own now, mixpanel/groups: mp fetch groups --group "
                f"NAME={self.data_group_id}"
            )
        if self.distinct_ids is not None and not all(given.strip() for given in self.distinct_ids or ("",)):
            raise ConfigurationError("distinct_ids must name at least one id, and no empty ones")
        self._check_behaviors()
        self.kept.check()

    def _check_behaviors(self) -> None:
        if self.behaviors is None:
            if self.as_of_timestamp is not None:
                raise ConfigurationError("as_of_timestamp only makes sense with behaviors: set both or neither")
            return
        if not _is_list_of_behaviors(self.behaviors):
            raise ConfigurationError(
                'behaviors must be a JSON list such as [{"window": "30d", "name": "x", "event_selectors": [{"event": '
                '"Signup"}]}]'
            )
        if self.where is None:
            raise ConfigurationError('behaviors choose nobody by themselves: set where too, e.g. (behaviors["x"] > 0)')
        if self.as_of_timestamp is None or self.as_of_timestamp < 1:
            raise ConfigurationError(
                "behaviors need as_of_timestamp, in seconds since 1970: Mixpanel serves one page of them without it"
            )
        if self.cohort_id is not None:
            raise ConfigurationError("behaviors and cohort_id cannot be combined: use one of them")

    @property
    def filter_text(self) -> str | None:
        """What narrows the query down, as JSON text; None if nothing does."""
        filters = {
            "cohort_id": self.cohort_id,
            "include_all_users": self.include_all_users,
            # Not the moment: who left the filter since then has left it.
            "behaviors": self.behaviors,
            "distinct_ids": None if self.distinct_ids is None else _digest(self.distinct_ids),
            "where": self.where,
        }
        chosen = {name: value for name, value in filters.items() if value is not None}
        return json.dumps(chosen, ensure_ascii=False) if chosen else None

    @property
    def is_incremental(self) -> bool:
        """Whether it asks for some by when they were seen."""
        return self.seen_since is not None

    def seen_from(self, moment: datetime.datetime) -> "ProfileQuery":
        """The same, of profiles that were seen since then."""
        return replace(self, seen_since=moment.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S"))

    @property
    def named_properties(self) -> Sequence[str]:
        """Those of output_properties."""
        return self.output_properties or ()

    def form(self) -> dict[str, str]:
        """The query as form fields."""
        form = {}
        seen = None if self.seen_since is None else f'properties["$last_seen"] >= "{self.seen_since}"'
        if self.where is not None or seen is not None:
            form["where"] = f"({self.where}) and {seen}" if self.where and seen else self.where or seen or ""
        if self.cohort_id is not None:
            form["filter_by_cohort"] = json.dumps({"id": self.cohort_id})
            # Mixpanel's default is true, which invents rows for ids that have no profile.
            form["include_all_users"] = "true" if self.include_all_users else "false"
        if self.distinct_ids is not None:
            form["distinct_ids"] = json.dumps(list(self.distinct_ids))
        if self.behaviors is not None:
            form["behaviors"] = self.behaviors
            form["as_of_timestamp"] = str(self.as_of_timestamp)
        if self.output_properties is not None:
            form["output_properties"] = json.dumps(list(self.output_properties))
        if self.page_size is not None:
            form["page_size"] = str(self.page_size)
        if self.data_group_id is not None:
            form["data_group_id"] = self.data_group_id
        return form


def _digest(ids: Sequence[str]) -> str:
    """What tells lists of ids apart: it stands beside each row, where thousands of ids have no place."""
    return hashlib.sha256(json.dumps(sorted(set(ids))).encode()).hexdigest()[:16]


def _is_list_of_behaviors(text: str) -> bool:
    try:
        listed = json.loads(text)
    except ValueError:
        return False
    return isinstance(listed, list) and bool(listed) and all(isinstance(each, dict) for each in listed)
