"""User and group profiles: a snapshot in pages, from the Engage API to `mixpanel.profiles`.

stream.py       names and columns
settings.py     what can be chosen
query.py        what is asked for
wire.py         a page as it comes (page_split.py, spool.py: a large one)
fetch.py        asking until a page is good
assets.py       the asset and its checks
"""
