"""The names of the jobs, for who must tell our runs from other people's: jobs.py makes the jobs."""

SYNC_PROFILES = "sync_profiles"
SYNC_RECENT_EVENTS = "sync_recent_events"
RETRY_FAILED_PROFILE_PAGES = "retry_failed_profile_pages"
RETRY_FAILED_EVENT_RANGES = "retry_failed_event_ranges"

# What syncs an asset, besides a run of the asset itself.
PROFILE_JOBS = frozenset({SYNC_PROFILES, RETRY_FAILED_PROFILE_PAGES})
EVENT_JOBS = frozenset({SYNC_RECENT_EVENTS, RETRY_FAILED_EVENT_RANGES})
JOB_NAMES = PROFILE_JOBS | EVENT_JOBS
