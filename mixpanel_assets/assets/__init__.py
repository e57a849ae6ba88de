"""The assets: each module reads top to bottom as its data flows."""
