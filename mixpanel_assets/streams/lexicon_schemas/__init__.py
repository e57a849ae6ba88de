"""What Lexicon, a project's data dictionary, says of events and properties: a list on one page, from the App API to
`mixpanel.lexicon_schemas`.

rows.py         an entry of the list, taken apart
stream.py       names, columns, and the request
assets.py       the asset and its settings
"""
