"""Publish: old or new, never half; what a snapshot and what a part of one does to the table."""

import datetime
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from mixpanel_assets.errors import WarehouseError
from mixpanel_assets.storage.duckdb_file import DuckDBFile
from mixpanel_assets.storage.warehouse import Warehouse
from mixpanel_assets.streams.profiles.query import ProfileQuery
from mixpanel_assets.streams.snapshot.load import Published, publish
from mixpanel_assets.streams.snapshot.staged import StagedSnapshot
from mixpanel_assets_tests.staged import NOON, page, rejected, staged

pytestmark = pytest.mark.process

OLD = {"a": '{"old":1}', "b": '{"old":2}', "c": '{"old":3}', "d": None}
NEW = {"a": '{"new":1}', "b": '{"new":2}', "e": '{"$last_seen":"2026-01-02T03:04:05"}'}


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    """A database that holds OLD, and one rejected row."""
    warehouse = DuckDBFile(tmp_path / "test.duckdb")
    put(warehouse, staged(tmp_path, "old", [page(0, OLD, rejected=(rejected(4, "old"),))]))
    return warehouse


def put(warehouse: Warehouse, pages: StagedSnapshot) -> Published:
    with warehouse.transaction() as connection:
        return publish(connection, pages)


def rows(warehouse: Warehouse, query: str = "select distinct_id, properties::varchar from profiles") -> list[Any]:
    with warehouse.reading() as connection:
        return sorted(connection.execute(query).fetchall())


def table(warehouse: Warehouse) -> dict[str, str | None]:
    found = rows(warehouse)
    assert len(dict(found)) == len(found)
    return dict(found)


def test_a_complete_snapshot_replaces_the_table(warehouse: Warehouse, tmp_path: Path) -> None:
    published = put(warehouse, staged(tmp_path, "new", [page(0, NEW)]))
    assert table(warehouse) == NEW
    assert published == Published(rows=3, added=1, removed=2, duplicates=0)
    assert rows(warehouse, "select row from rejected_rows") == []


class TestSyncsWithAFilter:
    """A filter says nothing of those outside it. Red when a complete snapshot replaces the whole table."""

    PRO = ProfileQuery(where='properties["plan"] == "pro"')
    EU = ProfileQuery(where='properties["region"] == "eu"')

    def sync(self, warehouse: Warehouse, root: Path, query: ProfileQuery, *ids: str, most: float = 1.0) -> Published:
        name = f"{len(list((root / 'profiles').glob('*')))}"
        return put(warehouse, staged(root, name, [page(0, dict.fromkeys(ids, "{}"))], query=query, most=most))

    def test_removes_nobody_that_a_full_sync_brought(self, warehouse: Warehouse, tmp_path: Path) -> None:
        assert self.sync(warehouse, tmp_path, self.PRO, "a", "e", most=0.0).removed == 0
        assert set(table(warehouse)) == {*OLD, "e"}

    def test_removes_whom_only_it_has_brought(self, tmp_path: Path) -> None:
        warehouse = DuckDBFile(tmp_path / "pro.duckdb")
        self.sync(warehouse, tmp_path, self.PRO, "a", "b", "c")
        assert self.sync(warehouse, tmp_path, self.PRO, "a", "b").removed == 1
        assert set(table(warehouse)) == {"a", "b"}

    def test_whom_two_filters_brought_goes_with_neither(self, tmp_path: Path) -> None:
        warehouse = DuckDBFile(tmp_path / "two.duckdb")
        self.sync(warehouse, tmp_path, self.PRO, "a", "b")
        self.sync(warehouse, tmp_path, self.EU, "b", "c")
        self.sync(warehouse, tmp_path, self.PRO, "a")
        self.sync(warehouse, tmp_path, self.EU, "c")
        assert set(table(warehouse)) == {"a", "b", "c"}

    def test_a_full_sync_removes_whoever_is_gone(self, tmp_path: Path) -> None:
        warehouse = DuckDBFile(tmp_path / "full.duckdb")
        self.sync(warehouse, tmp_path, self.PRO, "a", "b")
        assert self.sync(warehouse, tmp_path, ProfileQuery(), "a", "c").removed == 1
        assert set(table(warehouse)) == {"a", "c"}
        assert self.sync(warehouse, tmp_path, self.PRO, "c", most=0.0).removed == 0


def test_many_small_pages_are_loaded(warehouse: Warehouse, tmp_path: Path) -> None:
    """Red when only the bytes of the files make a batch: DuckDB ran out of the memory that it is given."""
    properties = json.dumps({"$last_seen": "2026-01-02T03:04:05", **{f"name {number}": number for number in range(40)}})
    pages = [page(number, {f"{number} {row}": properties for row in range(10)}) for number in range(1000)]
    assert put(warehouse, staged(tmp_path, "small", pages)).added == 10_000


def test_a_part_is_merged_and_removes_nothing(warehouse: Warehouse, tmp_path: Path) -> None:
    # Red when an incomplete snapshot replaces the table.
    published = put(warehouse, staged(tmp_path, "new", [page(0, NEW)], complete=False, most=0.0))
    assert table(warehouse) == {**OLD, **NEW}
    assert published == Published(rows=5, added=1, removed=0, duplicates=0)


@pytest.mark.parametrize(("total", "removed"), [(None, 2), (3, 2), (4, 0)])
def test_whoever_lacks_is_gone_only_if_all_that_were_reported_came(
    warehouse: Warehouse, tmp_path: Path, total: int | None, removed: int
) -> None:
    # Red when rows are counted in place of profiles: the last case removes two.
    pages = [page(0, NEW), page(1, {"a": '{"again":1}'})]
    published = put(warehouse, staged(tmp_path, "new", pages, total=total))
    assert (published.removed, published.missing) == (removed, 1 if total == 4 else 0)


def test_of_a_profile_served_twice_the_last_stays(warehouse: Warehouse, tmp_path: Path) -> None:
    pages = [
        page(1, [("b", '{"page":1}'), ("b", '{"page":1,"again":true}')]),
        page(0, [("a", '{"page":0}'), ("b", '{"page":0}')]),
    ]
    published = put(warehouse, staged(tmp_path, "new", pages))
    assert table(warehouse) == {"a": '{"page":0}', "b": '{"page":1,"again":true}'}
    assert published.duplicates == 2


class TestAnOlderSnapshotThatComesLast:
    """A sync that began a minute later was faster. Red when the last to come wins."""

    LATER = NOON + datetime.timedelta(minutes=1)

    @pytest.mark.parametrize("complete", [True, False])
    def test_leaves_what_is_newer(self, warehouse: Warehouse, tmp_path: Path, *, complete: bool) -> None:
        part = page(0, {"a": '{"later":1}', "f": '{"later":2}'})
        put(warehouse, staged(tmp_path, "later", [part], complete=False, began=self.LATER))
        published = put(warehouse, staged(tmp_path, "new", [page(0, NEW)], complete=complete))
        newest = {**NEW, "a": '{"later":1}', "f": '{"later":2}'}
        assert table(warehouse) == (newest if complete else {**OLD, **newest})
        removed = 2 if complete else 0
        assert published == Published(rows=6 - removed, added=1, removed=removed, duplicates=0, newer=1)

    def test_is_refused_when_the_later_one_was_whole(self, warehouse: Warehouse, tmp_path: Path) -> None:
        # "e" is gone from Mixpanel since. Red when it is stored again.
        put(warehouse, staged(tmp_path, "later", [page(0, {"a": None, "f": None})], began=self.LATER))
        with pytest.raises(WarehouseError, match="this sync began at 12:00:00 UTC, and one that began later has"):
            put(warehouse, staged(tmp_path, "new", [page(0, NEW)]))
        assert table(warehouse) == {"a": None, "f": None}

    def test_what_a_wrong_clock_wrote_is_not_newer_for_ever(self, warehouse: Warehouse, tmp_path: Path) -> None:
        """Red without the look at the present: every sync until the year 2999 is refused."""
        in_2999 = NOON.replace(year=2999)
        put(warehouse, staged(tmp_path, "wrong", [page(0, OLD)], began=in_2999))
        put(warehouse, staged(tmp_path, "new", [page(0, NEW)]))
        assert table(warehouse) == NEW


def test_no_profile_at_all_empties_the_table(warehouse: Warehouse, tmp_path: Path) -> None:
    published = put(warehouse, staged(tmp_path, "new", [page(0, {})]))
    assert published == Published(rows=0, added=0, removed=4, duplicates=0)
    assert table(warehouse) == {}


@pytest.mark.parametrize(("most", "refused"), [(0.0, True), (0.49, True), (0.5, False), (1.0, False)])
def test_a_snapshot_removes_no_more_than_it_may(
    warehouse: Warehouse, tmp_path: Path, most: float, *, refused: bool
) -> None:
    new = staged(tmp_path, "new", [page(0, NEW)], most=most)
    if not refused:
        assert put(warehouse, new).removed == 2
        return
    with pytest.raises(WarehouseError, match=r"refused to remove 2 of 4 stored profiles \(50%\), the limit is"):
        put(warehouse, new)
    assert table(warehouse) == OLD


def test_a_first_snapshot_has_nothing_to_remove(tmp_path: Path) -> None:
    warehouse = DuckDBFile(tmp_path / "first.duckdb")
    put(warehouse, staged(tmp_path, "new", [page(0, {})], most=0.0))
    assert table(warehouse) == {}


@pytest.mark.parametrize(
    ("properties", "stored"),
    [
        ('{"$last_seen":"2026-01-02T03:04:05"}', "2026-01-02 03:04:05"),
        ('{"$last_seen":"2026-01-02"}', "2026-01-02 00:00:00"),
        ('{"$last_seen":"15/08/53895"}', None),
        ('{"$last_seen":1638298874}', "2021-11-30 19:01:14"),
        ('{"$last_seen":null}', None),
        ('{"$last_seen":{"x":1}}', None),
        ('{"last_seen":"2026-01-02"}', None),
        ("{}", None),
        (None, None),
    ],
)
def test_last_seen_is_a_time_or_null(tmp_path: Path, properties: str | None, stored: str | None) -> None:
    # Red with cast in place of try_cast: one odd value stops every sync.
    warehouse = DuckDBFile(tmp_path / "one.duckdb")
    put(warehouse, staged(tmp_path, "new", [page(0, {"a": properties})]))
    assert rows(warehouse, "select last_seen::varchar, properties::varchar from profiles") == [(stored, properties)]


def test_awkward_ids_and_long_rows(tmp_path: Path) -> None:
    odd = {"": None, "nul\x00nul": None, "'; drop table profiles; --": None, "\U0001f600": None, " a ": None, "A": None,
           "a": '{"text":"' + "x" * 3_000_000 + '"}', "\u2028": None, '"': None, "\\": None}  # fmt: skip
    warehouse = DuckDBFile(tmp_path / "odd.duckdb")
    put(warehouse, staged(tmp_path, "new", [page(0, odd)]))
    assert table(warehouse) == odd


def test_columns_are_as_promised(warehouse: Warehouse) -> None:
    with warehouse.reading() as connection:
        columns = [column[:2] for column in connection.execute("describe profiles").fetchall()]
    assert columns == [
        ("distinct_id", "VARCHAR"),
        ("properties", "JSON"),
        ("last_seen", "TIMESTAMP"),
        ("synced_at", "TIMESTAMP WITH TIME ZONE"),
        ("sync_filter", "VARCHAR"),
    ]
    assert rows(warehouse, "select distinct epoch(synced_at) from profiles") == [(NOON.timestamp(),)]


class Failing:
    """A connection whose `fail_at`-th call of execute or commit does `deed` instead."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, fail_at: int, deed: Callable[[], None]) -> None:
        self._connection, self._left, self._deed = connection, fail_at, deed

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._connection, name)
        if name in ("execute", "executemany", "commit"):
            self._left -= 1
            if self._left == 0:
                self._deed()
        return value


def fail() -> None:
    raise duckdb.IOException("IO Error: disk on fire")


def steps_until_done(
    warehouse: Warehouse, pages: StagedSnapshot, monkeypatch: pytest.MonkeyPatch, after_each: Callable[[], None]
) -> int:
    """Publish with a failure at the first step, the second, and so on, until none fails. Returns how many there are."""
    connect = duckdb.connect
    for step in range(1, 100):
        with monkeypatch.context() as patch:
            patch.setattr(
                "mixpanel_assets.storage.warehouse.duckdb.connect",
                lambda path, n=step: Failing(connect(path), n, fail),
            )
            try:
                put(warehouse, pages)
                return step
            except WarehouseError as error:
                said = str(error)
        assert "disk on fire" in said
        after_each()
    raise AssertionError("never done")


@pytest.mark.parametrize("complete", [True, False])
def test_a_failure_at_any_step_leaves_the_old_table(
    warehouse: Warehouse, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, complete: bool
) -> None:
    """Red without connection.begin: the table is empty, or gone, or half."""
    new = staged(tmp_path, "new", [page(0, NEW), page(1, {"z": None}, rejected=(rejected(1, "7"),))], complete=complete)

    def is_old() -> None:
        assert table(warehouse) == OLD
        assert rows(warehouse, "select row from rejected_rows") == [("old",)]

    assert steps_until_done(warehouse, new, monkeypatch, is_old) > 10
    assert table(warehouse) == {**({} if complete else OLD), **NEW, "z": None}
    assert rows(warehouse, "select row from rejected_rows") == [("7",)]


def test_a_first_publish_that_fails_at_any_step_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    warehouse = DuckDBFile(tmp_path / "first.duckdb")

    def is_empty() -> None:
        with pytest.raises(WarehouseError, match="holds nothing of Mixpanel yet: sync first"):
            rows(warehouse)

    steps_until_done(warehouse, staged(tmp_path, "new", [page(0, NEW)]), monkeypatch, is_empty)
    assert table(warehouse) == NEW


KILLED_AT = """
import os, pickle, signal, sys
from pathlib import Path
import duckdb
from mixpanel_assets_tests.streams.snapshot.test_load import Failing, put
from mixpanel_assets.storage.duckdb_file import DuckDBFile
from mixpanel_assets.storage.warehouse import Warehouse
connect = duckdb.connect
kill = lambda: os.kill(os.getpid(), signal.SIGKILL)
duckdb.connect = lambda path: Failing(connect(path), int(sys.argv[1]), kill)
put(DuckDBFile(Path(sys.argv[2])), pickle.loads(Path(sys.argv[3]).read_bytes()))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_kill_at_any_third_step_leaves_the_old_table(warehouse: Warehouse, tmp_path: Path) -> None:
    """The write-ahead log of a killed process is DuckDB's to mend. Red without connection.begin."""
    (tmp_path / "new.pickle").write_bytes(pickle.dumps(staged(tmp_path, "new", [page(0, NEW)])))
    for step in range(2, 100, 3):
        command = [sys.executable, "-c", KILLED_AT, str(step), warehouse.name, str(tmp_path / "new.pickle")]
        if subprocess.run(command, check=False).returncode == 0:
            break
        assert table(warehouse) == OLD
    assert step > 10
    assert table(warehouse) == NEW
