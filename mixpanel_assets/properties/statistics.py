"""SQL that reads properties out of JSON and counts them, in one pass over the rows.

Belongs here: what kind a value is, and how many different ones there are. What is done with the counts is
catalogue.py's. A name that a row repeats counts each time.

Each group keeps a sketch of its values, so that days counted at different times add up to one number of different
values: a multiresolution bitmap (Estan, Varghese, Fisk 2003), 20 levels of 64 bits, each level fed by half as many
values as the one before. Some 10% off for a million different values, rarely off at all for ten. DuckDB's own
`approx_count_distinct` keeps no state that another version of DuckDB can read.
"""

from mixpanel_assets.storage.instants import of_text

# Raise it with any change to what follows: days counted before are counted anew.
REVISION = 2
LEVELS = 20
_SLOTS = 64
# Fuller levels say little: with 45 of 64 bits set, the number of values is known within some 15%.
_FULL = 45
EXAMPLE_CHARACTERS = 100
# Integers that a double holds exactly.
_EXACT = 9_007_199_254_740_992

KINDS = (
    "boolean",
    "integer",  # up to 2^53: exact as a double too
    "bigint",  # fits 64 bits
    "hugeint",  # fits 128 bits
    "number",  # with a fraction or an exponent
    "huge number",  # neither HUGEINT nor DOUBLE holds it
    "date",
    "datetime",  # with an offset, or without and then taken for UTC
    "text",
    "list",
    "object",
    "null",
)

# A time with more than six decimals stays text, as TIMESTAMP has no more; so does 24:00, which would become another
# day.
_TIME = r"\d{4}-\d{2}-\d{2}[T ]([01]\d|2[0-3]):\d{2}(:\d{2}(\.\d{1,6})?)?([Zz]| ?[+-]\d{2}(:?\d{2})?)?"
_KIND = rf"""
    case served
        when 'VARCHAR' then case
            when length(value) not between 10 and 33 or substr(value, 5, 1) <> '-' then 'text'
            when regexp_full_match(value, '\d{{4}}-\d{{2}}-\d{{2}}') and try_cast(value as date) is not null then 'date'
            when regexp_full_match(value, '{_TIME}') and {of_text("value")} is not null then 'datetime'
            else 'text' end
        when 'DOUBLE' then case
            when not regexp_full_match(value, '-?\d+') then
                if(isfinite(coalesce(try_cast(value as double), 'inf'::double)), 'number', 'huge number')
            when try_cast(value as hugeint) is null then 'huge number'
            else 'hugeint' end
        when 'ARRAY' then 'list'
        when 'OBJECT' then 'object'
        when 'BOOLEAN' then 'boolean'
        when 'NULL' then 'null'
        else case
            when length(value) < 16 or abs(value::hugeint) <= {_EXACT} then 'integer'
            when try_cast(value as bigint) is not null then 'bigint'
            else 'hugeint' end
    end"""
# The lowest bits choose the slot; the rest, as a number between 0 and 1, the level.
_LEVEL = f"least({LEVELS - 1}, floor(-log2(((hash >> 11) + 1)::double / (1::ubigint << 53)::double)))"

# A sketch is a BIT while it is counted, and lies as its bytes: a DuckLake has no BIT. Tables of before hold BIT.
COLUMNS = (
    "event_name varchar, name varchar, kind varchar, rows bigint, first_seen timestamp, last_seen timestamp, "
    "low varchar, high varchar, sketch blob"
)


def counted(rows: str) -> str:
    """A query for `COLUMNS` (and `day` before them), one row per day, event, property and kind.

    Args:
        rows: A query for `day`, `event_name`, `seen` (timestamp) and `properties` (JSON).
    """
    return f"""
        select day, event_name, name, kind, count(*) as rows, min(seen) as first_seen, max(seen) as last_seen,
               min(short) as low, max(short) as high,
               bitstring_agg(({_LEVEL} * {_SLOTS} + hash % {_SLOTS})::smallint, 0, {LEVELS * _SLOTS - 1}) as sketch
        from (
            select day, event_name, seen, name, {_KIND} as kind, left(value, {EXAMPLE_CHARACTERS}) as short,
                   hash(value) as hash
            from (
                select day, event_name, seen, unnest(json_keys(properties)) as name,
                       unnest(json_extract_string(properties, '$.*')) as value,
                       unnest(json_type(properties, '$.*')) as served
                from ({rows})
            )
        )
        group by all"""


def different(sketch: str) -> str:
    """An expression for the number of different values that a sketch has seen; 0 for NULL."""
    fills = (
        f"[length(replace(substr({sketch}::varchar, level * {_SLOTS} + 1, {_SLOTS}), '0', '')) "
        f"for level in range({LEVELS})]"
    )
    first = f"coalesce(list_position([fill <= {_FULL} for fill in {fills}], true), {LEVELS})"
    seen = f"[-{_SLOTS} * ln(1 - least(fill, {_SLOTS - 0.5}) / {_SLOTS}) for fill in {fills}[{first}:]]"
    return f"case when {sketch} is null then 0 else round(pow(2, {first} - 1) * list_sum({seen}))::bigint end"
