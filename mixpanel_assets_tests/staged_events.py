"""What staged files of events hold, for tests that compare it with what was served."""

from pathlib import Path
from typing import Any

import duckdb

from mixpanel_assets.streams.events import columns as event_columns


def rows_of(file: Path, columns: str) -> list[Any]:
    """The rows of a Parquet file, in no certain order."""
    with duckdb.connect() as connection:
        return connection.execute(f"select {columns} from read_parquet(?)", [str(file)]).fetchall()


def lines_of(file: Path) -> list[bytes]:
    """The lines that the rows were made of, byte for byte, sorted."""
    rows = rows_of(file, "name, properties::varchar")
    return sorted(f'{{"event":{name},"properties":{properties}}}'.encode() for name, properties in rows)


def write(folder: Path, *lines: bytes) -> Path | None:
    """The Parquet file made of these lines; None if they are not all usual ones."""
    served = folder / "served.jsonl"
    served.write_bytes(b"".join(line + b"\n" for line in lines))
    target = folder / "events.parquet"
    return target if event_columns.write_columns(served, len(lines), target, "events") else None
