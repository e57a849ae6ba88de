"""Groups, such as companies: the profiles of each kind of group, from the Query API to `mixpanel.groups`.

query.py        which groups, and what of them
fetch.py        asking for all of one group
stream.py       names and columns
assets.py       the asset and its settings
"""
