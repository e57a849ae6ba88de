"""A Dagster asset pipeline that copies a Mixpanel project into DuckDB."""
