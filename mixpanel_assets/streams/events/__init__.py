"""Events: days in chunks, from the raw export to `mixpanel.events`.

query.py        what is asked for
wire.py         an export as it comes
fetch.py        asking for one range of days
lines.py        which lines are events
columns.py      lines as Parquet
staged.py       ranges as files
chunking.py     days as chunks, a chunk as ranges, and what of them came
load.py         the table (same_event.py: which rows are one event; missing.py: what it lacks; owed.py: what is to be
                fetched again)
assets.py       the ops, in the order in which data flows
reports.py      what a sync says of itself
checks.py       whether what is stored can be trusted
"""
