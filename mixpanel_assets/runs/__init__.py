"""Runs of the assets as `mp` and the Python functions start and watch them: the same runs as the UI's."""

from mixpanel_assets import own_process  # noqa: F401 - imported for its effect, before what imports DuckDB
