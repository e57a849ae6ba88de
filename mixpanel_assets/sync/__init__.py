"""The rules of a sync: what to ask for, what a good answer is, what is owed. No Dagster, no SQL."""
