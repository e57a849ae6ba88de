"""Who is in which cohort: a page of ids for each, from the Query API to `mixpanel.cohort_members`.

query.py        which cohorts, and what of them
choice.py       which of the project's cohorts are asked for
fetch.py        asking for the list, and for the members of one cohort
stream.py       names and columns
assets.py       the asset and its settings
"""
