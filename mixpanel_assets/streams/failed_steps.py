"""A page or chunk that did not come shows in its own step, and the steps after it run all the same.

Dagster runs what depends on a step only if it succeeds. So the step, once its requests are spent, is up for retry: the
UI draws that in yellow, with the reason. Its second attempt asks nothing, and hands on what the first one came to.
"""

import pickle
from contextlib import suppress
from pathlib import Path
from typing import Any

import dagster as dg

from mixpanel_assets import private_files
from mixpanel_assets.streams.failures import UpForRetry

# Each costs a step more, a tenth of a second; who looks at a run of which more failed sees it without.
_MOST_SHOWN = 100


def show_failure(context: dg.OpExecutionContext, staging: Path, fetched: Any) -> None:
    """Keep what did not come for the second attempt, and begin it; nothing where steps are not tried again, or where
    many show already.

    Raises:
        UpForRetry: the end of this attempt.
    """
    file = _file(context, staging)
    if (
        context.get_step_execution_context().retry_mode.disabled
        or len(list(file.parent.glob("*.failed"))) >= _MOST_SHOWN
    ):
        return
    # Where it cannot be kept, it is shown by its metadata alone, as what is in excess.
    with suppress(OSError):
        private_files.make_folder(file.parent)
        private_files.write(file, pickle.dumps(fetched))
        raise UpForRetry(str(fetched.error))


def shown_failure(context: dg.OpExecutionContext, staging: Path) -> Any | None:
    """What the first attempt came to; None in a first attempt, or where nobody knows."""
    if not context.retry_number:
        return None
    try:
        return pickle.loads(_file(context, staging).read_bytes())
    except (OSError, ImportError, AttributeError, pickle.UnpicklingError, EOFError):
        return None


def _file(context: dg.OpExecutionContext, staging: Path) -> Path:
    step_key = context.get_step_execution_context().step.key
    return staging / "handles" / context.run_id / f"{step_key}.failed"
