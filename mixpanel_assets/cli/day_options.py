"""Days on the command line: two dates, `today` and `yesterday` among them, or the last so many."""

import datetime
import re
from typing import Annotated

import typer

from mixpanel_assets import settings
from mixpanel_assets.errors import ConfigurationError

FromDate = Annotated[
    str | None, typer.Option("--from", metavar="DATE", help="First day: 2026-01-01, yesterday or today.")
]
ToDate = Annotated[
    str | None,
    typer.Option("--to", metavar="DATE", help="Last day, included; not needed after --from yesterday or today."),
]
LastDays = Annotated[
    str | None, typer.Option("--last", metavar="DAYS", help="Instead of both: so many days up to today, e.g. 7d.")
]
ChunkDays = Annotated[
    int | None,
    typer.Option(
        min=1, max=100, help="Days per request (default: 7, or as many as make ten requests).", show_default=False
    ),
]
_DAYS = re.compile(r"([0-9]{1,5})d?")
_BACK = {"today": 0, "yesterday": 1}


def day_range(from_date: str | None, to_date: str | None, last: str | None) -> tuple[str, str]:
    """The first and the last day as ISO dates, counted where the project counts; dates are checked by who uses them.

    Raises:
        ConfigurationError: too little, or too much, is given.
    """
    if last is not None:
        if from_date is not None or to_date is not None:
            raise ConfigurationError("--last stands for --from and --to: give it alone")
        return _back(_number_of_days(last) - 1), _back(0)
    if from_date is None:
        raise ConfigurationError("which days? Give --from and --to, or --last 7d")
    if to_date is None and from_date not in _BACK:
        raise ConfigurationError(f"--from {from_date} needs --to: a date, yesterday or today")
    return _date(from_date), _date(to_date or from_date)


def days_or_last_week(from_date: str | None, to_date: str | None, last: str | None) -> tuple[str, str]:
    """`day_range`, of the last seven days where nothing is given."""
    return day_range(from_date, to_date, last or ("7d" if from_date is None and to_date is None else None))


def _number_of_days(text: str) -> int:
    match = _DAYS.fullmatch(text.strip())
    if match is None or int(match[1]) < 1:
        raise ConfigurationError(f"--last {text!r} is not a number of days: write it as 7d")
    return int(match[1])


def _date(text: str) -> str:
    return _back(_BACK[text]) if text in _BACK else text


def _back(days: int) -> str:
    today = datetime.datetime.now(settings.timezone()).date()
    try:
        return (today - datetime.timedelta(days=days)).isoformat()
    except OverflowError:
        raise ConfigurationError(f"{days} days ago there was no calendar: ask for fewer") from None
