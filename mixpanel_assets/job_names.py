"""The names of the jobs, for who must tell our runs from other people's: jobs.py makes the jobs."""

SYNC_PROFILES = "sync_profiles"
SYNC_RECENT_EVENTS = "sync_recent_events"
RETRY_FAILED_PROFILE_PAGES = "retry_failed_profile_pages"
RETRY_FAILED_EVENT_RANGES = "retry_failed_event_ranges"

JOB_NAMES = frozenset({SYNC_PROFILES, SYNC_RECENT_EVENTS, RETRY_FAILED_PROFILE_PAGES, RETRY_FAILED_EVENT_RANGES})
