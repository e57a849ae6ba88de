"""A text as SQL has it, where DuckDB takes no parameter."""


def sql_text(value: object) -> str:
    """In quotes, those within it doubled."""
    return "'" + str(value).replace("'", "''") + "'"
