"""How an op fails on purpose: with one line that people read and a name that programs read."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from mixpanel_assets.errors import MixpanelAssetsError, kind_of


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Our own errors as Dagster failures that are not tried again: their message is all that there is to say."""
    try:
        yield
    except MixpanelAssetsError as error:
        raise dg.Failure(str(error), metadata={"error": kind_of(error)}, allow_retries=False) from None
