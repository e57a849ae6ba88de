"""The kinds of data that are copied, each in a folder of its own, and the rules that they share.

graph.py        the asset of every stream: its ops, in the order in which data flows
outcome.py      how a page or a range of days ended, and what a sync is of which nothing came
reports.py      what every sync says of its requests and failures
checks.py       how checks are told
snapshot/       the steps of a stream that comes as a whole, in pages
events/         the steps of a stream that comes by days
"""
