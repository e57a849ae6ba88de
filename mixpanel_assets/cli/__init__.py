"""`mp`, the command line. Results go to stdout as JSON, everything for people to stderr.

    fetch.py    mp fetch, mp retry
    status.py   mp status, mp plan
    stand_in.py mp demo, mp sandbox; demo.py what the demo does, demo_ui.py its Dagster UI
    streams.py  closed, full and unread streams
    output.py   how results and warnings are printed
    main.py     the commands put together, exit codes

Belongs here: options, exit codes, printing. Does not belong here: doing (runs/, sandbox/). What is
slow to import (Dagster, DuckDB, requests) is imported where it is used, so that `mp --help` answers at once.
"""
