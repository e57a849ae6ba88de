"""Which project is read, and as whom. Where the values come from is settings.py's."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from mixpanel_assets.errors import ConfigurationError

_SETTING = re.compile(r"\bMP_[A-Z_]+\b")


@dataclass(frozen=True)
class Project:
    """One Mixpanel project and the service account that may read it.

    `secret` is kept out of `repr`, so that no log or error can show it. `workspace_id` is the Data View that is read,
    empty where none is named. `names` are those of its settings, by the usual variables, where they differ.
    """

    username: str
    secret: str = field(repr=False)
    project_id: str
    query_url: str
    export_url: str
    app_url: str
    workspace_id: str = ""
    names: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    def in_own_names(self, text: str) -> str:
        """A text that names settings by the usual variables, with the names that they have for this project."""
        return _SETTING.sub(lambda found: self.names.get(found[0], found[0]), text)

    @property
    def params(self) -> dict[str, str]:
        """Which project, and which Data View of it, as parameters of each request."""
        chosen = {"project_id": self.project_id, "workspace_id": self.workspace_id}
        return {name: value for name, value in chosen.items() if value}

    def source(self, base_url: str) -> str:
        """Whose data comes from a URL, in words; the host alone, since a path may hold what is nobody's business."""
        view = f", workspace {self.workspace_id}" if self.workspace_id else ""
        return f"project {self.project_id}{view} at {urlsplit(base_url).netloc}"


def refuse_other(asked: str | None, here: str) -> None:
    """Refuse a query of another project: a run that is executed again, or takes up another, may find it changed.

    Raises:
        ConfigurationError: one line that names both.
    """
    if asked not in (None, here):
        raise ConfigurationError(f"the sync is of {asked}, and the environment names {here}: set it back, or sync anew")
