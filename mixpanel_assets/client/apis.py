"""The APIs as who asks them sees them: what each brings, and which setting each of its parameters comes from.

A refusal names parameters; whoever reads it knows settings.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

# An address that a server quotes names all parameters of the request.
_ADDRESS = re.compile(r"\S*[?&]\w+=\S*")


@dataclass(frozen=True)
class Setting:
    """Where a parameter comes from, and a pattern for how refusals name it."""

    name: str
    pattern: str


@dataclass(frozen=True)
class Api:
    """One API: its name, what it brings, and the setting of each parameter; `still` is what a project can fetch whose
    plan lacks it."""

    name: str
    brings: str
    settings: Mapping[str, Setting]
    still: str = ""

    def to_check(self, text: str, sent: Mapping[str, str]) -> str:
        """The settings that a refusal is about: those of the parameters that it names, else of those that were sent."""
        words = own_words(text, sent)
        named = [each.name for each in self.settings.values() if re.search(rf"(?i)\b({each.pattern})\b", words)]
        given = [each.name for parameter, each in self.settings.items() if parameter in sent]
        *most, last = dict.fromkeys(named or given or [_PROJECT["project_id"].name])
        return f"{', '.join(most)} and {last}" if most else last


def own_words(text: str, sent: Mapping[str, str]) -> str:
    """A refusal without what it quotes of the request: a filter may say anything."""
    for value in sent.values():
        text = text.replace(value, " ")
    return _ADDRESS.sub(" ", text)


_PROJECT = {
    "project_id": Setting("MP_PROJECT_ID", "project_?id"),
    "workspace_id": Setting("MP_WORKSPACE_ID", "workspaces?|workspace_?id|data views?"),
}
_WHERE = Setting("where", "where|selector|expression")
_DAYS = Setting("the days asked for, MP_TIMEZONE", "(from|to)_?date|dates?")

QUERIES = Api(
    "Query API",
    "profiles",
    {
        "where": _WHERE,
        "filter_by_cohort": Setting("cohort_id", "(filter_by_)?cohorts?|cohort_?id"),
        "distinct_ids": Setting("distinct_ids", "distinct_?ids?"),
        "behaviors": Setting("behaviors", "behaviou?rs?"),
        "as_of_timestamp": Setting("as_of_timestamp", "as_of_timestamp"),
        "include_all_users": Setting("include_all_users", "include_all_users"),
        "output_properties": Setting("output_properties", "output_properties"),
        "page_size": Setting("page_size", "page_?size"),
        "data_group_id": Setting("groups", "(data_)?groups?|(data_)?group_?id"),
        **_PROJECT,
    },
    still=", events can",
)
EXPORTS = Api(
    "raw export",
    "events",
    {
        "from_date": _DAYS,
        "to_date": _DAYS,
        "event": Setting("events", "events?"),
        "where": _WHERE,
        **_PROJECT,
    },
)
# What the project's own settings hold. None of its requests counts against the hour.
APP = Api(
    "App API",
    "what it holds",
    {
        "fromDate": Setting("from_date", "from_?date|dates?"),
        "toDate": Setting("to_date", "to_?date"),
        **_PROJECT,
    },
)
