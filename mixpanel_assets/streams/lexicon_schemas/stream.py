"""Lexicon as a stream: its names, its table, and the list as it comes.

Source: Mixpanel's Lexicon Schemas API (`GET {app}/projects/{id}/schemas`); it lists only what somebody has described.
"""

from dataclasses import dataclass

from mixpanel_assets.client.apis import APP
from mixpanel_assets.client.client import MixpanelClient
from mixpanel_assets.client.http import Request
from mixpanel_assets.errors import ConfigurationError
from mixpanel_assets.storage.columns import Column
from mixpanel_assets.streams.lexicon_schemas.rows import rows_of
from mixpanel_assets.streams.snapshot.list_page import ListQuery, fetch_list
from mixpanel_assets.streams.snapshot.stream import SnapshotStream

ENTITY_TYPES = ("event", "profile")


@dataclass(frozen=True)
class LexiconQuery(ListQuery):
    """Which entries: those of events, or of profiles; None: all."""

    entity_type: str | None = None

    def check(self) -> None:
        """Refuse another kind of entity.

        Raises:
            ConfigurationError: one line that names the setting.
        """
        super().check()
        if self.entity_type not in (None, *ENTITY_TYPES):
            raise ConfigurationError(f"entity_type must be {' or '.join(ENTITY_TYPES)}, not {self.entity_type!r}")

    @property
    def filter_text(self) -> str | None:
        """The kind."""
        return self.entity_type


def _request(client: MixpanelClient, query: LexiconQuery) -> Request:
    url = f"{client.project.app_url}/projects/{client.project.project_id}/schemas"
    url = f"{url}/{query.entity_type}" if query.entity_type else url
    return Request(APP, "GET", url, what="page 0", brings="what Lexicon says")


def _said(name: str) -> str:
    return f"""definition::json -> '$.metadata."com.mixpanel".{name}'"""


def _flag(name: str, description: str) -> Column:
    return Column(name, "BOOLEAN", description, value=f"coalesce(({_said(name)})::varchar = 'true', false)")


def _named(name: str, place: int, description: str, *, nullable: bool) -> Column:
    return Column(name, "VARCHAR", description, nullable, f"json_extract_string(staged.lexicon_key, '$[{place}]')")


LEXICON_LIST = SnapshotStream(
    name="lexicon_schemas",
    key=Column("lexicon_key", "VARCHAR", "The three names that follow, as a JSON list.", nullable=False),
    content=Column(
        "definition",
        "JSON",
        "What Lexicon says, exactly as Mixpanel serves it; who is to be asked, by mail address, may be in it.",
    ),
    columns=(
        _named("entity_type", 0, "event or profile.", nullable=False),
        _named("entity_name", 1, "The event's name; that of a profile is Mixpanel's.", nullable=False),
        _named("property", 2, "The property's name; NULL for the event or the profile itself.", nullable=True),
        Column("description", "VARCHAR", "What somebody wrote.", value="definition::json ->> '$.description'"),
        Column("display_name", "VARCHAR", "The name in Mixpanel's UI.", value=f"({_said('displayName')}) ->> '$'"),
        Column("type", "VARCHAR", "Of a property: the type it should have.", value="definition::json ->> '$.type'"),
        Column("tags", "VARCHAR[]", "Its tags.", value=f"coalesce(try_cast({_said('tags')} as varchar[]), [])"),
        _flag("hidden", "Whether Mixpanel's UI hides it."),
        _flag("dropped", "Whether Mixpanel drops it when it comes in."),
    ),
    query=LexiconQuery,
    fetch_page=fetch_list(_request, rows_of, "results", lambda client: client.schema_starts.turn(client.stop)),
    missing_table="missing_lexicon_schemas",
    is_counted=False,
)
