"""`mp export`: stored tables as files for other tools."""

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from mixpanel_assets import settings
from mixpanel_assets.cli.output import Format, print_result, say


class FileFormat(str, Enum):
    """What a file is."""

    parquet = "parquet"
    csv = "csv"
    jsonl = "jsonl"


def export(
    table: Annotated[str, typer.Argument(help="profiles, events, or another table or view of the schema mixpanel.")],
    to: Annotated[Path, typer.Option("--to", metavar="DIR", help="The folder for the file; it is made if need be.")],
    kind: Annotated[FileFormat, typer.Option("--format", help="jsonl: one JSON object per line.")] = FileFormat.parquet,
) -> None:
    """Write a stored table to a file, TABLE.FORMAT; asks Mixpanel nothing.

    Examples: mp export events --to out; mp export profiles_wide --to out --format csv
    """
    from mixpanel_assets.resources import warehouse_at
    from mixpanel_assets.storage.export import export_table

    with warehouse_at("", say).reading() as connection:
        say(f"Writing mixpanel.{table} of {settings.database()} to {to}")
        exported = export_table(connection, table, to, kind.value)
    result = {"table": table, "file": str(exported.file), "rows": exported.rows, "bytes": exported.bytes}
    print_result(result, Format.json)
