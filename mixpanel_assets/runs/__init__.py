"""Runs of the assets as `mp` and the Python functions start and watch them: the same runs as the UI's."""
