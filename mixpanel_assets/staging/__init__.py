"""What was fetched, as files, between Mixpanel and DuckDB: each whole or absent. No Dagster, no HTTP."""
