"""What the history of profiles costs: `python -m mixpanel_assets_tests.benchmarks.profile_history [PROFILES]`.

A million profiles of which one in a hundred changes from each sync to the next, five syncs: CPU seconds of publishing
the staged pages and the size of the DuckDB file, with `history` and without, as a Markdown table. Nothing is fetched.
"""

import datetime
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from mixpanel_assets.sandbox.people import ProfileGenerator
from mixpanel_assets.storage.duckdb_file import DuckDBFile
from mixpanel_assets.storage.staging import LocalStaging
from mixpanel_assets.streams.profiles.query import ProfileQuery
from mixpanel_assets.streams.profiles.stream import PROFILE_PAGES
from mixpanel_assets.streams.snapshot.load import publish
from mixpanel_assets.streams.snapshot.page import Page, Row
from mixpanel_assets.streams.snapshot.staged import Snapshot, SnapshotFolder, StagedSnapshot

SYNCS = 5
PAGE = 1000


def pages(profiles: int, sync: int) -> Iterator[Page]:
    """All profiles, of which every hundredth has another value since the sync before."""
    generator = ProfileGenerator(seed=7)
    for number in range(profiles // PAGE):
        rows = []
        for person in range(number * PAGE, (number + 1) * PAGE):
            row = generator.row(person)
            changes = sum(person % 100 == each for each in range(1, sync))
            rows.append(Row(row.distinct_id, f'{row.properties[:-1]},"visits":{changes}}}'))
        yield Page(number, PAGE, profiles if number == 0 else None, "s", tuple(rows), (), 0)


def stage(root: Path, profiles: int, sync: int) -> StagedSnapshot:
    """A sync as it is fetched."""
    folder = SnapshotFolder(LocalStaging(root), PROFILE_PAGES, str(sync))
    results = tuple(folder.write_page(page, counted_requests=0, attempts=()) for page in pages(profiles, sync))
    began = datetime.datetime.now(datetime.timezone.utc)
    plan = Snapshot(folder.path.name, ProfileQuery(), "s", PAGE, profiles, len(results), began)
    return StagedSnapshot(
        PROFILE_PAGES, plan, results, (), folder, complete=True, total=profiles, max_removed_fraction=1
    )


def main() -> None:
    """Print the table."""
    profiles = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
    print("| sync | without | with history | file without | file with | periods |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        for sync in range(1, SYNCS + 1):
            staged, cells, periods = stage(root, profiles, sync), [], 0
            for keep in (False, True):
                warehouse = DuckDBFile(root / f"{keep}.duckdb")
                began = time.process_time()
                with warehouse.transaction() as connection:
                    noted = publish(connection, replace(staged, keep_history=keep)).history
                cells.append((time.process_time() - began, warehouse.path.stat().st_size / 1e6))
                periods = noted.rows if noted else periods
            staged.folder.remove()
            (without, mb_without), (with_history, mb_with) = cells
            print(
                f"| {sync} | {without:.1f} s | {with_history:.1f} s | {mb_without:.0f} MB | {mb_with:.0f} MB | "
                f"{periods:,} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
