"""Events: days in chunks, from the raw export to `mixpanel.events`.

query.py        what is asked for
wire.py         an export as it comes
fetch.py        asking for one range of days
lines.py        which lines are events
columns.py      lines as Parquet
staged.py       ranges as files
chunking.py     days as chunks, a chunk as ranges, and what of them came
load.py         into the table (same_event.py: which rows are one event; missing.py: what it lacks)
stored.py       the table as it is read
owed.py         what is to be fetched again
store.py        what the IO manager does with it
graph.py        what the ops of streams/graph.py do here, and those that tell which days are stored
reports.py      what a sync says of itself
checks.py       whether what is stored can be trusted
settings.py     what can be chosen
assets.py       all of it, as a stream
"""
