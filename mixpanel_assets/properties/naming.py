"""What a property is called as a column, by Mixpanel's rules for its exports to warehouses.

Lower case, `_` for what needs quotes in SQL, `mp_` for a leading `$`, `res_` before words that SQL or the view itself
needs, at most 128 characters, `_1`, `_2`, ... where names collide. Pure; who has which name is remembered by
catalogue.py.

Source: https://docs.mixpanel.com/docs/data-pipelines/old-pipelines/schematized-export-pipeline
"""

import itertools
import unicodedata
from collections.abc import Collection, Iterable

MOST_CHARACTERS = 128
# What DuckDB 1.5 and 2.0 refuse as a bare column name, and what PostgreSQL, BigQuery or Snowflake would. A fixed list,
# because a name must not change with the version that happens to run.
RESERVED = frozenset(
    """
    all analyse analyze and anti any array as asc asof asymmetric at authorization between binary both by case cast
    check collate collation column columns concurrently constraint create cross cube current current_date current_time
    current_timestamp current_user default deferrable delete desc describe distinct do drop else end except exists
    false fetch for foreign freeze from full generated glob grant group having if ilike in initially inner insert
    intersect into is isnull join lambda lateral leading left like limit localtime localtimestamp map natural not
    notnull null offset on only or order outer over overlaps partition pivot pivot_longer pivot_wider placing
    positional primary qualify range references returning right rows select semi session_user set show similar some
    struct summarize symmetric table tablesample then to trailing true try_cast tuple union unique unnest unpack
    unpivot update user using values variadic verbose when where window with
    """.split()  # noqa: SIM905 - a list of a hundred words in quotes is no easier to read
)


def columns_for(names: Iterable[str], taken: Collection[str]) -> dict[str, str]:
    """A column for each property that has none yet, in the order given.

    Args:
        names: Exact names of properties.
        taken: Columns that exist: of other properties, and the view's own.

    Returns:
        Property to column; no column twice, and none of `taken`.
    """
    used = set(taken)
    columns = {}
    for name in dict.fromkeys(names):
        columns[name] = _free(plain(name), used)
        used.add(columns[name])
    return columns


def plain(name: str) -> str:
    """The column a property would have if no other did: a word that SQL takes without quotes."""
    prefix, rest = ("mp_", name[1:]) if name.startswith("$") else ("", name)
    # One form for é and its like, which look the same and may be written in two ways.
    text = unicodedata.normalize("NFC", unicodedata.normalize("NFC", rest).lower())
    word = prefix + "".join(character if character.isalnum() else "_" for character in text)
    if word in RESERVED:
        word = f"res_{word}"
    if not word or word[0].isdigit():
        word = f"_{word}"
    return word[:MOST_CHARACTERS]


def _free(word: str, used: Collection[str]) -> str:
    if word not in used:
        return word
    numbered = (word[: MOST_CHARACTERS - len(end)] + end for end in (f"_{number}" for number in itertools.count(1)))
    return next(candidate for candidate in numbered if candidate not in used)
