"""Which project is read, and as whom. Where the values come from is settings.py's."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Project:
    """One Mixpanel project and the service account that may read it.

    `secret` is kept out of `repr`, so that no log or error can show it.
    """

    username: str
    secret: str = field(repr=False)
    project_id: str
    query_url: str
    export_url: str
