"""Staged files: whole or absent, and read back as they were written."""

import datetime
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mixpanel_assets.client.retry import Attempt
from mixpanel_assets.errors import WarehouseError
from mixpanel_assets.storage.staging import KEEP_SECONDS, LocalStaging
from mixpanel_assets.streams.profiles.query import ProfileQuery
from mixpanel_assets.streams.profiles.stream import PROFILE_PAGES
from mixpanel_assets.streams.snapshot.staged import Snapshot, SnapshotFolder
from mixpanel_assets_tests.staged import NOON, page, rejected

pytestmark = pytest.mark.process

ATTEMPT = Attempt(NOON, NOON + datetime.timedelta(seconds=1), "page 3: no", 2.5)


@pytest.fixture
def folder(tmp_path: Path) -> SnapshotFolder:
    return SnapshotFolder(LocalStaging(tmp_path), PROFILE_PAGES, "snapshot")


def test_a_page_is_read_back_as_it_was_written(folder: SnapshotFolder) -> None:
    served = page(3, {"a": '{"x":1.10}', "b": None}, total=7, rejected=(rejected(2, "7"),), repairs=4)
    written = folder.write_page(served, counted_requests=1, attempts=[ATTEMPT])
    assert folder.read_page(3) == written
    assert (written.rows, written.rejected, written.served, written.repairs, written.total) == (2, 1, 3, 4, 7)
    assert (written.came, written.counted_requests, written.attempts) == (True, 1, (ATTEMPT,))
    lines = [json.loads(line) for line in folder.rows_file(3).read_bytes().splitlines()]
    assert lines == [
        {"page": 3, "row": 0, "distinct_id": "a", "properties": '{"x":1.10}'},
        {"page": 3, "row": 1, "distinct_id": "b", "properties": None},
    ]
    aside = [json.loads(line) for line in folder.rejected_file(3).read_bytes().splitlines()]
    assert aside == [{"source": "page 3", "row": 2, "reason": "not an object", "text": "7"}]


def test_a_snapshot_is_read_back_as_it_was_written(folder: SnapshotFolder) -> None:
    query = ProfileQuery(where="x", output_properties=("a", "b"), cohort_id=3)
    snapshot = Snapshot("snapshot", query, None, 10, None, 4, NOON, restarts=1)
    folder.write_snapshot(snapshot)
    assert folder.read_snapshot() == snapshot


_LOOKED_INTO = """
import mixpanel_assets.definitions
from mixpanel_assets.client import property_filter, retry
from mixpanel_assets.streams.events.query import EventsQuery
from mixpanel_assets.streams.events.staged import RangeResult
from mixpanel_assets.streams.profiles.query import ProfileQuery
from mixpanel_assets.streams.snapshot import staged
classes = [staged._StoredSnapshot, staged.PageResult, RangeResult, ProfileQuery, EventsQuery,
           property_filter.PropertyFilter, retry.Attempt]
print([name.__name__ for name in classes if "__msgspec_cache__" not in vars(name)])
"""


def test_msgspec_has_looked_into_the_classes_before_any_thread_reads_one() -> None:
    """Red when the first step that reads a manifest makes the decoder. Four of 60 processes whose threads did so, with
    the interpreter switching often, ended in SIGSEGV. `msgspec.convert` in the reports profits too."""
    missing = subprocess.run([sys.executable, "-c", _LOOKED_INTO], capture_output=True, text=True, check=True).stdout
    assert missing == "[]\n"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"id":"x"}', b"null", b"\xff"])
def test_a_manifest_of_another_make_counts_as_absent(folder: SnapshotFolder, content: bytes) -> None:
    folder.write_page(page(0, {"a": None}), 0, ())
    (folder.path / "page-00000.json").write_bytes(content)
    (folder.path / "snapshot.json").write_bytes(content)
    assert folder.read_page(0) is None
    assert folder.read_snapshot() is None


def test_rows_that_were_cut_or_are_gone_count_as_absent(folder: SnapshotFolder) -> None:
    # Red without the comparison of sizes, and without that of presence.
    folder.write_page(page(0, {"a": None, "b": None}), 0, ())
    whole = folder.rows_file(0).read_bytes()
    folder.rows_file(0).write_bytes(whole[:-1])
    assert folder.read_page(0) is None
    folder.rows_file(0).write_bytes(whole)
    assert folder.read_page(0) is not None
    folder.rows_file(0).unlink()
    assert folder.read_page(0) is None


@pytest.mark.parametrize("step", [1, 2, 3])
def test_a_failure_at_any_file_leaves_no_page(
    folder: SnapshotFolder, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Red when the manifest is written first: the page counts as staged."""
    replace, calls = Path.replace, []

    def fail(self: Path, target: Path) -> Path:
        calls.append(target)
        if len(calls) == step:
            raise OSError(28, "No space left on device")
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(WarehouseError, match=r"cannot stage in .*: No space left on device; free space or choose"):
        folder.write_page(page(0, {"a": None}, rejected=(rejected(0, "7"),)), 0, ())
    monkeypatch.undo()
    assert folder.read_page(0) is None
    assert list(folder.path.glob("*.partial")) == []
    folder.write_page(page(0, {"a": None}), 0, ())
    assert folder.read_page(0) is not None


def test_pages_with_the_same_profiles_have_the_same_digest_of_ids(folder: SnapshotFolder) -> None:
    first = folder.write_page(page(0, {"a": '{"x":1}', "b": None}), 0, ())
    turned = folder.write_page(page(1, {"b": None, "a": '{"x":1}'}), 0, ())
    changed = folder.write_page(page(2, {"a": '{"x":2}', "b": None}), 0, ())
    other = folder.write_page(page(3, {"a": '{"x":1}', "c": None}), 0, ())
    assert first.ids_digest == turned.ids_digest == changed.ids_digest != other.ids_digest
    assert len({first.digest, changed.digest, other.digest}) == 3


def test_dropped_and_lost(folder: SnapshotFolder) -> None:
    folder.write_page(page(0, {"a": None}, rejected=(rejected(1, "7"),)), 0, ())
    folder.drop_page(0)
    assert list(folder.path.glob("*")) == []
    folder.drop_page(0)
    assert not folder.is_lost()
    folder.mark_lost()
    assert folder.is_lost()


def test_a_place_that_cannot_be_written_is_refused_before_any_page_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WarehouseError, match=r"cannot stage in .*; free space or choose another DAGSTER_HOME"):
        LocalStaging(tmp_path / "file").prepare("profiles")
    LocalStaging(tmp_path / "new" / "staging").prepare("profiles")
    assert list((tmp_path / "new" / "staging" / "profiles").iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_only_the_user_who_syncs_may_read_profiles(folder: SnapshotFolder) -> None:
    folder.write_page(page(0, {"a": None}), 0, ())
    assert folder.path.stat().st_mode & 0o077 == 0


def test_old_folders_are_swept_and_others_stay(tmp_path: Path) -> None:
    place = LocalStaging(tmp_path)
    old, young = (SnapshotFolder(place, PROFILE_PAGES, name) for name in ("old", "young"))
    for folder in (old, young):
        folder.write_page(page(0, {"a": None}), 0, ())
    past = time.time() - KEEP_SECONDS - 60
    os.utime(old.path, (past, past))
    place.sweep()
    assert not old.path.exists()
    assert young.read_page(0) is not None
    LocalStaging(tmp_path / "nowhere").sweep()
