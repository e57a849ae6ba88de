"""Properties, measured: catalogue and views over a million events with 300 different properties, 34 in each.

`python -m mixpanel_assets_tests.benchmarks.properties [events]` (default 1000000) prints a Markdown table: each step
in a process of its own, beside `select count(*)` over the JSON text (reading alone) and over one property (reading and
parsing); and peak memory at a tenth of the events and at all of them.

The figures are of one run, on whatever else the machine does; compare within it.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import duckdb

from mixpanel_assets.properties import catalogue, typed_tables, wide_views
from mixpanel_assets.properties.sources import EVENTS
from mixpanel_assets.storage.duckdb_file import DuckDBFile

NAMES, COMMON, OWN = 20, 20, 14
DAYS = 30
ONE_COLUMN = "select count(common_3) from {}"
TEN_COLUMNS = f"select {', '.join(f'count(common_{k})' for k in range(10))} from {{}}"
# Kinds of values in turn, of `h`, a hash of the row.
_VALUES = (
    "(h % {most})::varchar",
    "'\"v' || (h % {most}) || '\"'",
    "if(h % 2 = 0, 'true', 'false')",
    "((h % 100000) / 100)::varchar",
    "'\"2026-01-' || lpad((1 + h % 28)::varchar, 2, '0') || 'T10:11:12\"'",
    "if(h % 50 = 0, '\"x\"', (h % 1000)::varchar)",
    "'[\"a\",' || (h % 9) || ']'",
)

Step = Callable[[duckdb.DuckDBPyConnection], object]


@dataclass(frozen=True)
class Measured:
    """One step in a process of its own."""

    seconds: float
    peak_mb: int


def _all_columns(connection: duckdb.DuckDBPyConnection, table: str) -> object:
    described = connection.execute(f"describe {table}").fetchall()
    counted = ", ".join(f'count("{row[0]}")' for row in described)
    return connection.execute(f"select {counted} from {table}").fetchall()


def _typed_table(connection: duckdb.DuckDBPyConnection) -> object:
    typed_tables.choose(connection, EVENTS, wanted=True)
    typed_tables.update(connection, EVENTS)
    return None


def _reload_a_day(connection: duckdb.DuckDBPyConnection) -> object:
    # What a load does to a day, as far as the catalogue can tell.
    connection.execute("update events set synced_at = now() where event_time::date = '2026-01-15'")
    return None


def _views(connection: duckdb.DuckDBPyConnection) -> object:
    wide_views.request_event_views(connection, ["*"])
    return wide_views.create_views(connection, EVENTS)


STEPS: dict[str, Step] = {
    "count(*) over the JSON text": lambda c: c.execute(
        "select count(*) from events where length(properties::varchar) > 0"
    ).fetchall(),
    "count of one property": lambda c: c.execute("select count(properties ->> '/common_3') from events").fetchall(),
    "catalogue, first time": lambda c: catalogue.update(c, EVENTS),
    "catalogue, nothing new": lambda c: catalogue.update(c, EVENTS),
    "(a day is loaded again)": _reload_a_day,
    "catalogue, one day of 30 new": lambda c: catalogue.update(c, EVENTS),
    "21 views": _views,
    "events_wide, one column": lambda c: c.execute(ONE_COLUMN.format("events_wide")).fetchall(),
    "events_wide, ten columns": lambda c: c.execute(TEN_COLUMNS.format("events_wide")).fetchall(),
    "events_wide, all columns": lambda c: _all_columns(c, "events_wide"),
    "events_typed, made": _typed_table,
    "(another day is loaded again)": _reload_a_day,
    "events_typed, one day of 30 new": lambda c: typed_tables.update(c, EVENTS),
    "events_typed, one column": lambda c: c.execute(ONE_COLUMN.format("events_typed")).fetchall(),
    "events_typed, ten columns": lambda c: c.execute(TEN_COLUMNS.format("events_typed")).fetchall(),
    "events_typed, all columns": lambda c: _all_columns(c, "events_typed"),
}


def fill(path: Path, events: int) -> None:
    """A table of events, all distinct, by days."""
    common = " || ',' || ".join(_member(f"common_{k}", k) for k in range(COMMON))
    own = " ".join(
        f"when {name} then " + " || ',' || ".join(_member(f"own_{name}_{k}", k + name) for k in range(OWN))
        for name in range(NAMES)
    )
    with DuckDBFile(path).transaction() as connection:
        connection.execute("set memory_limit = '800MB'; set preserve_insertion_order = false")
        connection.execute(
            "create table events (event_name varchar, event_time timestamp, distinct_id varchar, insert_id varchar, "
            "properties json, synced_at timestamptz)"
        )
        connection.execute(
            f"""
            insert into events
            select 'event ' || (i % {NAMES}),
                   timestamp '2026-01-01' + interval (i * {DAYS} // {events}) day + interval (i % 86400) second,
                   'u' || (i % 50000), 'id' || i,
                   ('{{' || {common} || ',' || case i % {NAMES} {own} end || '}}')::json, now()
            from (select i, hash(i) as h from range({events}) as numbers(i))
            """
        )


def _member(name: str, number: int) -> str:
    value = _VALUES[number % len(_VALUES)].format(most=10 ** (number % 6 + 1))
    return f"'\"{name}\":' || {value}"


def measure(path: Path, step: str) -> Measured:
    """Run one step in a process of its own."""
    command = [sys.executable, "-m", __spec__.name if __spec__ else __name__, "--step", str(path), step]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return Measured(**json.loads(said.splitlines()[-1]))


def run_step(path: Path, step: str) -> None:
    """What the child process does: a step, as the pipeline runs it."""
    with DuckDBFile(path).transaction() as connection:
        connection.execute("set threads = 2; set memory_limit = '400MB'; set preserve_insertion_order = false")
        began = time.perf_counter()
        STEPS[step](connection)
        seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "peak_mb": peak_mb()}))


def peak_mb() -> int:
    """Peak memory of this process so far. Linux only; getrusage would count what the parent held before it forked."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM:"))


def tables(events: int) -> None:
    """Print the results."""
    results = {count: _measured(count) for count in (events // 10, events)}
    few, many = results.values()
    alone = many["count(*) over the JSON text"].seconds
    print(
        f"\n| {events:,} events | seconds | times a bare scan | peak MB | peak MB at a tenth |\n|---|--:|--:|--:|--:|"
    )
    for step, measured in many.items():
        if step.startswith("("):
            continue
        times = measured.seconds / alone
        print(f"| {step} | {measured.seconds:.2f} | {times:.1f} | {measured.peak_mb} | {few[step].peak_mb} |")


def _measured(events: int) -> dict[str, Measured]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "mixpanel_data.duckdb"
        fill(path, events)
        return {step: measure(path, step) for step in STEPS}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--step"]:
        run_step(Path(sys.argv[2]), sys.argv[3])
    else:
        tables(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
