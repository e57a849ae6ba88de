"""A page or chunk that did not come shows in its own step, and the steps after it run all the same.

Dagster runs what depends on a step only if it succeeds. So the step, once its requests are spent, is up for retry: the
UI draws that in yellow, with the reason. Its second attempt asks nothing, and hands on what the first one came to.
"""

import pickle
from typing import Any

import dagster as dg

from mixpanel_assets.errors import MixpanelAssetsError
from mixpanel_assets.storage.staging import HANDLES_FOLDER, Staging
from mixpanel_assets.streams.failures import UpForRetry

# Each costs a step more, a tenth of a second; who looks at a run of which more failed sees it without.
_MOST_SHOWN = 100


def show_failure(context: dg.OpExecutionContext, staging: Staging, fetched: Any) -> None:
    """Keep what did not come for the second attempt, and begin it; nothing where steps are not tried again, where it
    cannot be kept, or where many show already.

    Raises:
        UpForRetry: the end of this attempt.
    """
    folder, key = _place(context)
    if context.get_step_execution_context().retry_mode.disabled or len(staging.names(folder)) >= _MOST_SHOWN:
        return
    try:
        staging.put(key, pickle.dumps(fetched))
    except MixpanelAssetsError:
        return
    raise UpForRetry(str(fetched.error))


def shown_failure(context: dg.OpExecutionContext, staging: Staging) -> Any | None:
    """What the first attempt came to; None in a first attempt, or where nobody knows."""
    if not context.retry_number:
        return None
    content = staging.get(_place(context)[1])
    try:
        return pickle.loads(content) if content else None
    except (ImportError, AttributeError, pickle.UnpicklingError, EOFError):
        return None


def _place(context: dg.OpExecutionContext) -> tuple[str, str]:
    """Where those of a run lie, among its handles, and the key of this one."""
    folder = f"{HANDLES_FOLDER}/{context.run_id}/failed"
    return folder, f"{folder}/{context.get_step_execution_context().step.key}"
