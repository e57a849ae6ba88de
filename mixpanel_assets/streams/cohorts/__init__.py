"""Cohorts, without their members: a list on one page, from the Query API to `mixpanel.cohorts`.

stream.py       names, columns, and the request
assets.py       the asset and its settings
"""
