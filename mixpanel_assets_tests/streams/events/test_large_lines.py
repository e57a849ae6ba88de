"""The largest lines of an export, staged within the memory that is given for it."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mixpanel_assets_tests.staged_events import rows_of, write


@pytest.mark.parametrize(("count", "megabytes"), [(400, 1), (20, 8)])
def test_the_largest_lines_need_no_more_than_the_memory_given(tmp_path: Path, count: int, megabytes: int) -> None:
    """Red, out of memory: with a `where` in `_COLUMNS`, with half of `_MEMORY_MB`, with row groups by rows alone."""
    text = b"x" * ((megabytes << 20) - 200)
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()

    def convert(folder: Path) -> Path | None:
        return write(folder, *(b'{"event":"a","properties":{"n":%d,"x":"%s"}}' % (n, text) for n in range(count)))

    with ThreadPoolExecutor() as threads:
        for file in threads.map(convert, folders):
            assert file is not None
            rows = rows_of(file, "(properties->>'n')::int, md5(properties->>'x')")
            assert sorted(rows) == [(n, hashlib.md5(text).hexdigest()) for n in range(count)]
