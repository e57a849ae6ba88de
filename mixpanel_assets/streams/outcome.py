"""How asking for something ended, whatever it was: it came, or failed, with a code for programs and a line for people.

A cancelled request is no outcome: it raises `Cancelled`, and the run tells how far it was.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from mixpanel_assets.client.retry import Attempt
from mixpanel_assets.errors import MixpanelError, error_of

# How the line on what failed begins in the log; who sees it there needs no other.
MISSING = "missing from this sync: "


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How the fetch of a page, or of a range of days, ended.

    Attributes:
        rejected: Rows that came and cannot be stored.
        error: Why it is to be fetched again, in one line.
        error_kind: The name of that error in errors.py; empty where none was raised.
        counted_requests: Requests that count against the hour.
        attempts: Each request sent.
    """

    rejected: int = 0
    error: str | None = None
    error_kind: str = ""
    counted_requests: int = 0
    attempts: tuple[Attempt, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether it is to be fetched again."""
        return self.error is not None

    @property
    def brought(self) -> bool:
        """Whether anything of it can be stored."""
        return not self.failed

    @property
    def waited_seconds(self) -> float:
        """What its requests waited before they were sent."""
        return sum(attempt.wait_seconds for attempt in self.attempts)


class Fetched(Protocol):
    """What one order brought: a page, or a chunk of one or several ranges."""

    @property
    def outcomes(self) -> Sequence[Outcome]:
        """How each part of it ended."""

    @property
    def rows(self) -> int:
        """Rows staged."""

    @property
    def error(self) -> str | None:
        """Why it did not come, or not all of it."""


def outcomes_of(fetched: Iterable[Fetched]) -> list[Outcome]:
    """How each part of all that was ordered ended."""
    return [outcome for each in fetched for outcome in each.outcomes]


def refuse_nothing(fetched: Sequence[Fetched], unit: str) -> None:
    """A sync of which nothing came has failed: what is stored stays.

    Raises:
        MixpanelAssetsError: as the first that failed did.
    """
    outcomes = outcomes_of(fetched)
    first = next((outcome for outcome in outcomes if outcome.failed), None)
    if first is not None and not any(outcome.brought for outcome in outcomes):
        raise error_of(
            first.error_kind or MixpanelError.__name__,
            f"no {unit} of {len(fetched)} came, nothing was stored or removed: {first.error}",
        )
