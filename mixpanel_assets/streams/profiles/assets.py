"""`mixpanel/profiles` and its checks."""

from mixpanel_assets.pools import ENGAGE_POOL
from mixpanel_assets.streams.profiles.settings import ProfilesConfig
from mixpanel_assets.streams.profiles.stream import PROFILES
from mixpanel_assets.streams.snapshot.checks import snapshot_checks
from mixpanel_assets.streams.snapshot.graph import snapshot_asset

profiles = snapshot_asset(
    PROFILES,
    ProfilesConfig,
    pool=ENGAGE_POOL,
    description=(
        "One row per user profile of the Mixpanel project, as of the last sync. A complete sync replaces the table: "
        "profiles deleted in Mixpanel go. A sync with failed pages adds and updates, and removes nothing; the job "
        "retry_failed_profile_pages fetches those pages alone."
    ),
)
profiles_checks = snapshot_checks(PROFILES, profiles.key, "retry_failed_profile_pages")
PROFILES_KEY = profiles.key
