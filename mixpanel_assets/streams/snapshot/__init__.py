"""A stream that comes as a whole, in pages: written once, for every such stream.

stream.py       what a stream has to say of itself
settings.py     what can be chosen for each
page.py         a page as it comes
page_rules.py   how many pages, and what a page must hold
staged.py       pages as files
asking.py       asking for a page, and once more where that may help
snapshots.py    page 0, the others, and what of them came
load.py         the table (missing.py: what it lacks; owed.py: what is to be fetched again)
changes.py      who came and went
history.py      what each row was, and when
incremental.py  asking for what was seen since the last sync
store.py        what the IO manager does with it
graph.py        what the ops of streams/graph.py do here
reports.py      what a sync says of itself
checks.py       whether what is stored can be trusted
"""
