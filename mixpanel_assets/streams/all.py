"""All streams, in the order of the UI: a new kind of data is a folder, and a line here."""

from mixpanel_assets.streams.annotations.assets import ANNOTATIONS
from mixpanel_assets.streams.cohort_members.assets import COHORT_MEMBERS
from mixpanel_assets.streams.cohorts.assets import COHORTS
from mixpanel_assets.streams.events.assets import EVENTS
from mixpanel_assets.streams.groups.assets import GROUPS
from mixpanel_assets.streams.lexicon_schemas.assets import LEXICON_SCHEMAS
from mixpanel_assets.streams.profiles.assets import PROFILES

STREAMS = (PROFILES, EVENTS, GROUPS, COHORTS, COHORT_MEMBERS, ANNOTATIONS, LEXICON_SCHEMAS)
