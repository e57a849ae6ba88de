"""User and group profiles: a snapshot in pages, from the Engage API to `mixpanel.profiles`.

query.py        what is asked for
wire.py         a page as it comes (page_split.py, spool.py: a large one)
fetch.py        asking until a page is good
page_rules.py   how many pages, and what a page must hold
staged.py       pages as files
snapshots.py    page 0, the others, and what of them came
load.py         the table (missing.py: what it lacks)
assets.py       the ops, in the order in which data flows
reports.py      what a sync says of itself
checks.py       whether what is stored can be trusted
"""
