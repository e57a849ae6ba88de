"""The threaded executor of Dagster steps: threaded.py is the door, the other modules are what stands behind it.

It knows nothing of Mixpanel; which pools there are, it is told.
"""

from mixpanel_assets.executor.threaded import build_threaded_executor, threaded_executor

__all__ = ["build_threaded_executor", "threaded_executor"]
