"""`mixpanel/profiles`, as a stream."""

from mixpanel_assets.pools import ENGAGE_POOL
from mixpanel_assets.streams.profiles.settings import ProfilesConfig
from mixpanel_assets.streams.profiles.stream import PROFILE_PAGES
from mixpanel_assets.streams.snapshot.assets import as_stream

PROFILES = as_stream(
    PROFILE_PAGES,
    ProfilesConfig,
    pool=ENGAGE_POOL,
    singular="profile",
    description=(
        "One row per user profile of the Mixpanel project, as of the last sync. A complete sync replaces the table: "
        "profiles deleted in Mixpanel go. A sync with failed pages adds and updates, and removes nothing; the job "
        "retry_failed_profile_pages fetches those pages alone."
    ),
)
PROFILES_KEY = PROFILES.key
