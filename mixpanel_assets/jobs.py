"""Jobs: what people start by name besides materializing an asset."""

import dagster as dg

from mixpanel_assets.assets.profiles import PROFILES_KEY, ProfilesConfig

retry_failed_profile_pages = dg.define_asset_job(
    "retry_failed_profile_pages",
    selection=dg.AssetSelection.assets(PROFILES_KEY),
    config=dg.RunConfig(ops={"mixpanel__profiles": ProfilesConfig(retry_failed_pages=True)}),
    description="Fetch only the profile pages that failed last time, and publish the complete snapshot.",
)
