"""The days of `mixpanel/events`, as Dagster partitions.

The present day is one of them: Mixpanel serves it, it refuses only the future. It grows until it is over, so the
scheduled sync fetches it again with the days before.
"""

import datetime

import dagster as dg

from mixpanel_assets import settings
from mixpanel_assets.errors import ConfigurationError
from mixpanel_assets.settings import ENVIRONMENT, Variables


def event_days(variables: Variables = ENVIRONMENT) -> dg.DailyPartitionsDefinition:
    """One partition per day of the project's time zone, from the first day of events up to today."""
    start, zone = start_and_zone(variables)
    return dg.DailyPartitionsDefinition(start_date=start, timezone=zone, end_offset=1)


def start_and_zone(variables: Variables = ENVIRONMENT) -> tuple[str, str]:
    """The first day of events, ISO, and the project's time zone, as they are set now.

    Settings that cannot be read give the defaults here, so that the code location loads with all that does not need
    them; a sync of events refuses them in one line before it asks for anything.
    """
    try:
        return settings.events_start_date(variables).isoformat(), settings.timezone(variables).key
    except ConfigurationError:
        return settings.DEFAULT_EVENTS_START_DATE, "UTC"


def today(variables: Variables = ENVIRONMENT) -> str:
    """The project's present day, ISO.

    Raises:
        ConfigurationError: MP_TIMEZONE is unknown.
    """
    return datetime.datetime.now(settings.timezone(variables)).date().isoformat()


def trailing_days(lookback_days: int, variables: Variables = ENVIRONMENT) -> tuple[str, str]:
    """The first and the last day of a scheduled sync of events, as ISO dates: none before the first partition.

    Raises:
        ConfigurationError: MP_TIMEZONE or MP_EVENTS_START_DATE cannot be read.
    """
    last = datetime.date.fromisoformat(today(variables))
    first = max(last - datetime.timedelta(days=lookback_days), settings.events_start_date(variables))
    return min(first, last).isoformat(), last.isoformat()
