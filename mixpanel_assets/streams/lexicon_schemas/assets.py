"""`mixpanel/lexicon_schemas`, as a stream."""

from pydantic import Field

from mixpanel_assets.pools import ENGAGE_POOL
from mixpanel_assets.settings import ENVIRONMENT, Variables
from mixpanel_assets.streams.lexicon_schemas.stream import LEXICON_LIST, LexiconQuery
from mixpanel_assets.streams.snapshot.assets import as_stream
from mixpanel_assets.streams.snapshot.settings import SnapshotConfig


class LexiconConfig(SnapshotConfig):
    """Settings of one sync of Lexicon."""

    entity_type: str | None = Field(default=None, description="Only what is said of this: event or profile.")

    def asked(self, variables: Variables = ENVIRONMENT) -> LexiconQuery:
        return LexiconQuery(entity_type=self.entity_type)


LEXICON_SCHEMAS = as_stream(
    LEXICON_LIST,
    LexiconConfig,
    pool=ENGAGE_POOL,
    singular="lexicon_schema",
    description=(
        "What Lexicon says of events, profiles and their properties, as of the last sync: descriptions, tags, what is "
        "hidden and what is dropped. One request, of five a minute; it does not count in the hour. What nobody has "
        "described is not in it."
    ),
)
