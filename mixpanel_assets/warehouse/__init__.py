"""The DuckDB file, its tables, and how a sync becomes visible in them. No Dagster, no HTTP."""
