"""Lines of an export as a Parquet file: parsed once, by DuckDB, which proves each line while it takes it apart.

The usual line is `{"event":"...","properties":{...}}`, whole JSON, its name not empty. A file with any other line
becomes no Parquet file; lines.py says what becomes of such lines. A third of a million events of 500 bytes take
a second, and 177 MB of lines become 63 MB.

    name          the event's name as JSON text, as served: what a row set aside is written from
    event_name    the name
    event_time    as `time` says, be that UTC or a wall clock; NULL if it cannot be read
    distinct_id   text; NULL if absent
    insert_id     text; NULL if absent
    properties    JSON, as served: proven here, so that whoever reads the file need not parse it
"""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import duckdb

from mixpanel_assets.streams.events.wire import BrokenExportError

# An event has a megabyte at most. DuckDB lets pass a few times this before it calls a line too long.
MAX_LINE_BYTES = 8 << 20
_BEGIN = '{"event":"'
_BETWEEN = '","properties":{'
# Seconds up to here, milliseconds beyond: the year 5138 in seconds, 1973 in milliseconds.
_FIRST_MILLISECONDS = 100_000_000_000

# Inside a string no quote stands without a backslash, so the first `","properties":{` of a usual line ends the name;
# the two parts being JSON each proves that it is one. Whatever is not ends the query with an error: the reader's on
# text that is no JSON, `error` on another beginning, the extraction's on the name, the cast's on the properties. A
# filter would not do: DuckDB gathers up to 2048 rows behind one, and events of a megabyte would exceed any memory.
_COLUMNS = f"""
    select name, json_extract_string(name, '$') as event_name,
           try(make_timestamp(try_cast(round(seen * per_unit) as bigint))) as event_time,
           fields[2] as distinct_id, fields[3] as insert_id, properties
    from (
        select name, properties::json as properties, fields, try_cast(fields[1] as double) as seen,
               case when abs(seen) < {_FIRST_MILLISECONDS} then 1000000 else 1000 end as per_unit
        from (
            select name, properties,
                   json_extract_string(properties, ['$.time', '$.distinct_id', '$."$insert_id"']) as fields
            from (
                select case when starts_with(line, '{_BEGIN}') and place > {len(_BEGIN) + 1}
                            then substr(line, {len(_BEGIN)}, place - {len(_BEGIN) - 1})
                            else error('not a usual line') end as name,
                       substr(line, place + {len(_BETWEEN) - 1}, length(line) - place - {len(_BETWEEN) - 1})
                           as properties
                from (
                    select json::varchar as line, strpos(json::varchar, '{_BETWEEN}') as place
                    from read_ndjson_objects($lines, maximum_object_size = {MAX_LINE_BYTES})
                )
            )
        )
    )
    """
# Row groups by rows for the usual event, by bytes for large ones; bytes are only looked at when the order of rows may
# change. No dictionaries: hardly a text comes twice.
_FORMAT = "format parquet, dictionary_size_limit 1, row_group_size 20000, row_group_size_bytes '16MB'"
# For both files at once. Usual events need a tenth of it, whatever their number; with 500 MB for a file lines of a
# megabyte fail, and with 150 MB DuckDB 2.0 waits for ever for memory to come free.
_MEMORY_MB = 1600
_AT_ONCE = 2


def write_columns(lines_file: Path, lines: int, target: Path, what: str) -> bool:
    """Write so many lines as a Parquet file. Returns whether all are usual ones; if not, the target is worth nothing.

    Raises:
        OSError: the target cannot be written.
        BrokenExportError: DuckDB failed on these lines, as when they need more memory than it has.
    """
    files = {"lines": str(lines_file), "target": str(target)}
    with _database.cursor(target.parent) as cursor:
        try:
            # By name: DuckDB 1.5 and 2.0 number the places of a copy in different orders.
            query = f"copy ({_COLUMNS}) to $target ({_FORMAT})"
            [(written,)] = cursor.execute(query, files).fetchall()
        except (duckdb.InvalidInputException, duckdb.ConversionException):
            return False
        except duckdb.IOException as error:
            _database.give_up()
            raise OSError(" ".join(str(error).split())) from None
        except duckdb.Error as error:
            _database.give_up()
            # By its name alone: its words could quote an event.
            raise BrokenExportError(f"{what}: DuckDB failed on its lines ({type(error).__name__})") from None
    return int(written) == lines


class _Database:
    """One database for the files that come together: opened for the first, closed after the last.

    With one for each, 13 weeks of 78,000 events take 3.2 s instead of 2.1 s. Kept longer it would keep its memory.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._turns = threading.Semaphore(_AT_ONCE)
        self._users = 0
        self._connection: duckdb.DuckDBPyConnection | None = None

    @contextmanager
    def cursor(self, folder: Path) -> Iterator[duckdb.DuckDBPyConnection]:
        """A connection whose turn has come; what exceeds memory goes to the folder of who came first."""
        connection = self._join(folder)
        try:
            with self._turns, connection.cursor() as cursor:
                yield cursor
        finally:
            self._leave()

    def give_up(self) -> None:
        """Let who comes next have a new one: after some errors DuckDB answers no further query."""
        with self._lock:
            self._connection = None

    def _join(self, folder: Path) -> duckdb.DuckDBPyConnection:
        with self._lock:
            if self._connection is None:
                self._connection = duckdb.connect(
                    config={
                        "threads": 2,
                        "memory_limit": f"{_MEMORY_MB}MB",
                        "preserve_insertion_order": False,
                        "temp_directory": str(folder),
                    }
                )
            self._users += 1
            return self._connection

    def _leave(self) -> None:
        with self._lock:
            self._users -= 1
            if not self._users and self._connection is not None:
                self._connection.close()
                self._connection = None


_database = _Database()
