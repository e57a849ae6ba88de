"""Who came to a part and who left it: noted in the transaction that stores what came.

Of a part of which nothing was ever stored, the rows that it has at first are no change.
"""

from __future__ import annotations  # DuckDB's types as text, see process_setup.py

from collections.abc import Mapping

import duckdb

from mixpanel_assets.streams.snapshot.stream import SnapshotStream


def note(
    connection: duckdb.DuckDBPyConnection,
    stream: SnapshotStream,
    removable: str,
    values: Mapping[str, object],
) -> None:
    """Note what publishing the table `chosen_rows` is about to change.

    Args:
        connection: Within the transaction, before rows are removed.
        stream: Nothing is noted of one without a table of changes.
        removable: The condition for stored rows that go where they did not come.
        values: Of its parameters.
    """
    if stream.part is None or stream.changes_table is None:
        return
    table, part, keys = stream.changes_table, stream.part.name, ", ".join(stream.row_key)
    columns = ", ".join(f"{name} varchar" for name in stream.row_key)
    connection.execute(f"create table if not exists {table} ({columns}, change varchar, noticed_at timestamptz)")
    connection.execute(
        f"insert into {table} select {keys}, 'joined', now() from chosen_rows "
        f"where ({keys}) not in (select {keys} from {stream.name}) "
        f"and {part} in (select {part} from {stream.name} union select {part} from {table})"
    )
    connection.execute(
        f"insert into {table} select {keys}, 'left', now() from {stream.name} "
        f"where {removable} and ({keys}) not in (select {keys} from chosen_rows)",
        dict(values),
    )
