"""Mixpanel, as a client sees it. Knows nothing of Dagster or DuckDB."""
