"""Who is who: the `distinct_id`s that Mixpanel has merged, each with the one that it goes by today.

For projects with merged identities. An event keeps the distinct_id that it was fetched with, and a later merge may give
the same person another one; so old days of `mixpanel.events` do not join with `mixpanel.profiles` until they are
fetched again. With the view `mixpanel.identities` they do.

links.py        what events say of ids that belong together, day by day
clusters.py     which ids are one, and which of them is the canonical one
publish.py      the table `merged_identities` and the view
assets.py       the asset
store.py        what the UI shows of it
"""
