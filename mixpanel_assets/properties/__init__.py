"""Properties as columns. No Dagster, and no row passes through Python: DuckDB reads the JSON.

Which there are: catalogue.py, from the counts of counting.py and statistics.py. What they are called: naming.py. Typed
views over them: wide_views.py.
"""
