"""The code location with schedules that tick every minute, so that a test need not wait for the full hour."""

from mixpanel_assets.definitions import build_defs
from mixpanel_assets.executor import threaded_executor

defs = build_defs(cron="* * * * *", executor=threaded_executor)
