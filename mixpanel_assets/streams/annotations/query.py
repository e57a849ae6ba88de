"""Which annotations: a query of the App API as its parameters."""

import datetime
import json
from dataclasses import dataclass

from mixpanel_assets.errors import ConfigurationError
from mixpanel_assets.streams.snapshot.list_page import ListQuery


@dataclass(frozen=True)
class AnnotationsQuery(ListQuery):
    """Which annotations; None means: no bound.

    Attributes:
        from_date: First day, an ISO date, included.
        to_date: Last day, likewise.
    """

    from_date: str | None = None
    to_date: str | None = None

    def check(self) -> None:
        """Refuse what is no range of days.

        Raises:
            ConfigurationError: one line that names the setting.
        """
        super().check()
        days = [_day(name, text) for name, text in (("from_date", self.from_date), ("to_date", self.to_date)) if text]
        if days != sorted(days):
            raise ConfigurationError(f"from_date {self.from_date} is after to_date {self.to_date}")

    @property
    def filter_text(self) -> str | None:
        """The bounds as JSON text; None if there are none."""
        chosen = {"from_date": self.from_date, "to_date": self.to_date}
        given = {name: day for name, day in chosen.items() if day}
        return json.dumps(given) if given else None

    def params(self) -> dict[str, str]:
        """The query as parameters."""
        chosen = {"fromDate": self.from_date, "toDate": self.to_date}
        return {name: day for name, day in chosen.items() if day}


def _day(name: str, text: str) -> datetime.date:
    try:
        day = datetime.date.fromisoformat(text)
    except ValueError:
        day = None
    # Newer Pythons read 20240131 too, which Mixpanel does not.
    if day is None or day.isoformat() != text:
        raise ConfigurationError(f"{name} {text!r} is not a date: write it as 2024-01-31")
    return day
