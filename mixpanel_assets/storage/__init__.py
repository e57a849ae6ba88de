"""Where data waits and lands: files between Mixpanel and DuckDB, and the DuckDB file. Knows no stream."""
