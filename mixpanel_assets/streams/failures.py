"""How an op fails on purpose: with one line that people read and a name that programs read."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterUserCodeProcessError
from dagster_shared.error import SerializableErrorInfo

from mixpanel_assets.errors import MixpanelAssetsError, kind_of


class _WithoutStack(DagsterUserCodeProcessError):
    """Dagster shows such an error as the info that it carries, instead of where it was raised."""

    def __init__(self, text: str) -> None:
        info = SerializableErrorInfo(text, [], type(self).__name__)
        super().__init__(text, user_code_process_error_infos=[info])  # type: ignore[no-untyped-call]  # Dagster's


class OneLineFailure(dg.Failure, _WithoutStack):
    """A failure that is not tried again, and that the UI and the log show as its line alone.

    Args:
        text: What happened and what to do.
        kind: Name of the error class in errors.py.
        metadata: More about it.
    """

    def __init__(self, text: str, kind: str, metadata: Mapping[str, Any] | None = None) -> None:
        super().__init__(text, metadata={**(metadata or {}), "error": kind}, allow_retries=False)


class UpForRetry(dg.RetryRequested, _WithoutStack):
    """The end of a step's first attempt, shown as its line alone."""

    def __init__(self, text: str) -> None:
        _WithoutStack.__init__(self, text)
        self.max_retries, self.seconds_to_wait = 1, 0


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Our own errors as failures: their message is all that there is to say."""
    try:
        yield
    except MixpanelAssetsError as error:
        raise OneLineFailure(str(error), kind_of(error)) from None
