"""What DuckDB's errors mean where the tables are a DuckLake, as ours."""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

import re

import duckdb

from mixpanel_assets.client.server_text import one_line
from mixpanel_assets.database_address import LakeAddress
from mixpanel_assets.errors import WarehouseError
from mixpanel_assets.storage.duckdb_errors import lock_holder

_MOST_CHARACTERS = 400
_NOT_THERE = "creating a new DuckLake is explicitly disabled"
_EXTENSION = re.compile(r"extension \"?'?(?P<name>\w+)", re.IGNORECASE)
_NO_EXTENSION = re.compile(
    r"failed to download extension|extension .* not found|failed to load extension", re.IGNORECASE
)
_POSTGRES = re.compile(r"unable to connect to postgres at .*?: (?P<reason>.*)", re.IGNORECASE | re.DOTALL)
_OTHER_DATA = re.compile(r'existing data path in the catalog "(?P<path>[^"]*)"')
_BUCKET = re.compile(r"\bHTTP|s3://|url|bucket|credential", re.IGNORECASE)
_NO_CATALOGUE = re.compile(r"not a valid DuckDB|file is not a database|not a DuckLake", re.IGNORECASE)
_CONFLICT = re.compile(r"conflict|database is locked", re.IGNORECASE)
_NO_ROOM = re.compile(r"no space left|could not write|disk is full|file too large", re.IGNORECASE)


def is_not_there(error: duckdb.Error) -> bool:
    """Whether DuckDB says that nobody has made the DuckLake yet."""
    return _NOT_THERE in str(error)


def explained(error: duckdb.Error, lake: LakeAddress) -> WarehouseError:
    """The error of a DuckLake, in one line that says what to do."""
    whole = str(error)
    text = one_line(whole, _MOST_CHARACTERS)  # It may quote rows.
    holder = lock_holder(error)
    if holder is not None:
        return WarehouseError(
            f"the catalogue {lake} is held by {holder}: close it there and sync again; the tables are as they were. "
            "Only a catalogue in Postgres or SQLite has readers while a sync writes"
        )
    if _NO_EXTENSION.search(whole):
        named = _EXTENSION.search(whole)
        name = named["name"] if named else "ducklake"
        return WarehouseError(f"DuckDB {duckdb.__version__} cannot get its extension {name}: {text}")
    if unreachable := _POSTGRES.search(whole):
        reason = one_line(unreachable["reason"], _MOST_CHARACTERS)
        return WarehouseError(f"cannot reach the catalogue {lake}: {reason}; nothing was changed")
    if other := _OTHER_DATA.search(whole):
        there = one_line(other["path"], _MOST_CHARACTERS)
        return WarehouseError(f"the data of {lake} lie in {there}, not in {lake.data}: set MP_DATA_PATH to that")
    if _NO_CATALOGUE.search(whole):
        return WarehouseError(f"{lake.catalogue} is no catalogue of a DuckLake: set MP_DATABASE to another")
    if isinstance(error, (duckdb.HTTPException, duckdb.IOException)) and _BUCKET.search(whole):
        return WarehouseError(f"cannot use {lake.data or 'the data'} of {lake}, which is as it was: {text}")
    if _NO_ROOM.search(whole):
        return WarehouseError(f"cannot write {lake}, which is as it was: free space, then sync again: {text}")
    if isinstance(error, duckdb.TransactionException) and _CONFLICT.search(whole):
        return WarehouseError(f"another program changed {lake} meanwhile, so it is as it was: sync again: {text}")
    return WarehouseError(f"DuckDB refused ({lake} is as it was): {text}")
