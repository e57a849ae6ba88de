"""A program that copies a file: `python copy_file.py SOURCE TARGET`. TARGET is made, for its owner alone.

It is a process of its own since POSIX drops all locks that a process has on a file when it closes the file anywhere:
DuckDB's on its database, if the copy were made beside it. Only the standard library, as it is run by its path.
"""

import os
import shutil
import sys
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO


def _copy(source: BinaryIO, target: BinaryIO) -> None:
    """By the kernel, which shares the blocks where the file system can (Btrfs, XFS); else by reading and writing."""
    if hasattr(os, "copy_file_range"):
        with suppress(OSError):
            while os.copy_file_range(source.fileno(), target.fileno(), 1 << 30):
                pass
    # What the kernel would not copy.
    source.seek(os.lseek(target.fileno(), 0, os.SEEK_CUR))
    shutil.copyfileobj(source, target, 1 << 20)


def main(source: str, target: str) -> None:
    """Copy, and see that it is on the disk."""
    with (
        Path(source).open("rb") as origin,
        open(target, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as copy,
    ):
        _copy(origin, copy)
        copy.flush()
        os.fsync(copy.fileno())


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except OSError as error:
        sys.exit(error.strerror or str(error))
