"""Schedules: hourly syncs that never overlap with themselves, nor with a sync that somebody started by hand.

Off until somebody turns them on. A run that is still under way makes a tick skip, with a word; dagster.yaml's limit for
`dagster/schedule_name` would only queue it, and holds only where that file is used.
"""

import dagster as dg

from mixpanel_assets.active_runs import active_run
from mixpanel_assets.jobs import HISTORY_JOB
from mixpanel_assets.projects import CopiedProject
from mixpanel_assets.streams.stream import Stream

# Mixpanel takes events that are days late (mobile devices offline, imports); five days hold nearly all of them.
LOOKBACK_DAYS = 5
HOURLY = "0 * * * *"
NIGHTLY = "17 3 * * *"


def hourly_schedule(stream: Stream, lookback_days: int = LOOKBACK_DAYS, cron: str = HOURLY) -> dg.ScheduleDefinition:
    """The schedule of a stream.

    Args:
        stream: What is synced.
        lookback_days: Of a stream by days, those before today that each sync fetches again; 0: today only.
        cron: Five fields: at which minutes.
    """

    @dg.schedule(
        cron,
        name=stream.schedule,
        job_name=stream.sync_job,
        description=stream.schedule_description.format(days=lookback_days),
    )
    def schedule(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        active = active_run(context.instance, stream.key, stream.jobs)
        if active:
            return dg.SkipReason(f"run {active[:8]} of {stream.key.to_user_string()} is under way")
        return stream.request(lookback_days)

    return schedule


def history_schedule(project: CopiedProject) -> dg.ScheduleDefinition:
    """The one schedule that is on from the start: it asks Mixpanel nothing."""
    return dg.ScheduleDefinition(
        name=project.called(f"{HISTORY_JOB}_schedule"),
        job_name=project.called(HISTORY_JOB),
        cron_schedule=NIGHTLY,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="Each night: what is too old goes, also where no sync runs that would delete it.",
    )
