"""SQL that reads an instant, as Mixpanel's users write one, into a TIMESTAMP in UTC.

Texts are ISO 8601, with an offset or without (then UTC); numbers are seconds since 1970, or milliseconds or
microseconds where seconds would lie beyond the year 5138. What cannot be read is NULL. The session's time zone changes
nothing: only texts with an offset are read as TIMESTAMPTZ, and by their microseconds since 1970.
"""

# 100,000,000,000 is the year 5138 in seconds and 1973 in milliseconds.
_FIRST_MILLISECONDS = 100_000_000_000
_FIRST_MICROSECONDS = 1000 * _FIRST_MILLISECONDS
_LAST_MICROSECONDS = 1000 * _FIRST_MICROSECONDS
_OFFSET = r"[+-]\d{2}(:?\d{2})?"
_ENDS_WITH_OFFSET = rf".*\d:\d{{2}}(:\d{{2}}(\.\d+)?)? ?{_OFFSET}"
# Digits that are a moment since 1970, and no date such as 20240131.
_DIGITS = r"-?\d{9,}(\.\d+)?"


def of_text(value: str) -> str:
    """The instant of a SQL expression for a text."""
    # DuckDB reads six decimals; before an offset it wants seconds and no space, and in the offset a colon.
    plain = rf"regexp_replace(upper({value}), '(\.\d{{6}})\d+', '\1')"
    with_seconds = rf"regexp_replace({plain}, '([T ]\d{{2}}:\d{{2}})( ?[+-]\d)', '\1:00\2')"
    with_offset = rf"regexp_replace({with_seconds}, ' ?([+-]\d{{2}}):?(\d{{2}})?$', '\1:\2')"
    # Most texts have no sign near their end, which is told faster than a pattern.
    signs = f"(contains(right({value}, 6), '+') or contains(right({value}, 6), '-'))"
    return (
        f"case when {signs} and regexp_full_match({value}, '{_ENDS_WITH_OFFSET}') "
        f"then try(make_timestamp(epoch_us(try_cast(rtrim({with_offset}, ':') as timestamptz)))) "
        # Not 'infinity' and the other words that DuckDB knows.
        f"when regexp_full_match({value}, '\\d.*') then try_cast({plain} as timestamp) end"
    )


def of_number(value: str) -> str:
    """The instant of a SQL expression for a DOUBLE."""
    return (
        f"case when abs({value}) < {_LAST_MICROSECONDS} then try(make_timestamp(try_cast(round({value} * case "
        f"when abs({value}) < {_FIRST_MILLISECONDS} then 1000000 "
        f"when abs({value}) < {_FIRST_MICROSECONDS} then 1000 else 1 end) as bigint))) end"
    )


def of_json(document: str, path: str) -> str:
    """The instant of a member of a SQL expression for JSON, be it a text or a number."""
    text = f"({document} ->> {path})"
    is_number = f"json_type({document}, {path}) in ('BIGINT', 'UBIGINT', 'HUGEINT', 'UHUGEINT', 'DOUBLE')"
    return (
        f"case when {is_number} or regexp_full_match({text}, '{_DIGITS}') "
        f"then {of_number(f'try_cast({text} as double)')} else {of_text(text)} end"
    )
