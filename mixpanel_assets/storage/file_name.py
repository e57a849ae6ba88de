"""The name of the DuckDB file, which DuckDB takes for the database's too: where it is the schema's, `mixpanel.profiles`
could mean two things and is refused.

Belongs here: how the default file gets its present name, and what is said of others. Does not belong here: which file
is meant (settings.py).
"""

import os
from dataclasses import replace
from pathlib import Path

import duckdb

from mixpanel_assets.errors import WarehouseError
from mixpanel_assets.settings import DUCKDB_FILE
from mixpanel_assets.storage.duckdb_errors import lock_holder
from mixpanel_assets.storage.duckdb_file import DuckDBFile

# DuckDB shares a file within a process only between connections of one configuration, and nobody else has this one.
_ALONE: dict[str, str | bool | int | float | list[str]] = {"custom_user_agent": "mixpanel_assets renames the file"}


def advised(warehouse: DuckDBFile) -> DuckDBFile:
    """The warehouse. One that its owner named like the schema stays as it is, and is said to be awkward."""
    schema = warehouse.schema
    if warehouse.path.name.partition(".")[0].lower() == schema:
        warehouse.say(
            f"in {warehouse.path} tables are called {schema}.{schema}.profiles, and so on: DuckDB names a database "
            f"after its file; another name for it, such as {DUCKDB_FILE}, makes that {schema}.profiles"
        )
    return warehouse


def under_present_name(warehouse: DuckDBFile, former: Path) -> DuckDBFile:
    """The default file, renamed if it has the former default name and nobody else has it open."""
    present = former.with_name(DUCKDB_FILE)
    if warehouse.path != former:
        if former.exists():
            warehouse.say(f"{present} is used; {former.name} beside it is left alone: delete it, or move it away")
        return warehouse
    renamed = replace(warehouse, path=present, only_if_there=False)
    with warehouse.turn():
        if not former.exists() or present.exists():  # another sync was first
            return renamed
        try:
            _rename(former, present)
        except duckdb.Error as error:
            if holder := lock_holder(error):
                warehouse.say(f"{former} is held by {holder}, so that it keeps its former name until a later sync")
            return warehouse
        except (OSError, WarehouseError) as error:
            warehouse.say(f"{former} keeps its former name: {error}")
            return warehouse
    warehouse.say(
        f"{former} is called {present.name} from now on, so that DuckDB understands {warehouse.schema}.profiles"
    )
    return renamed


def _rename(former: Path, present: Path) -> None:
    """One rename moves all: the log of an interrupted commit is in the file before, and DuckDB's lock keeps others out
    until after, but on Windows, which renames no open file."""
    with duckdb.connect(str(former), config=_ALONE) as connection:
        connection.execute("checkpoint")
        log = former.with_name(f"{former.name}.wal")
        if log.exists() and log.stat().st_size:
            raise WarehouseError(f"{log.name} holds what DuckDB could not write into it")
        if os.name != "nt":
            former.rename(present)
    if os.name == "nt":
        former.rename(present)
