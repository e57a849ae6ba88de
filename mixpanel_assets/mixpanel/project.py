"""Which project is read, and as whom. Where the values come from is settings.py's."""

from dataclasses import dataclass, field
from urllib.parse import urlsplit


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

    def source(self, base_url: str) -> str:
        """Whose data comes from a URL, in words; the host alone, since a path may hold what is nobody's business."""
        return f"project {self.project_id} at {urlsplit(base_url).netloc}"
