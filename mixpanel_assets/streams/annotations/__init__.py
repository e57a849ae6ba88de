"""Annotations, the notes on a project's charts: a list on one page, from the App API to `mixpanel.annotations`.

query.py        which of them
stream.py       names, columns, and the request
assets.py       the asset and its settings
"""
