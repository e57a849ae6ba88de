"""Files and folders that are made for their owner alone, whatever the umask: what is synced is personal data.

What is there already keeps its mode, as somebody may have chosen it. Windows gives a file the rights of its folder; a
home there is its owner's.
"""

import os
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

FILE_MODE = 0o600
FOLDER_MODE = 0o700


def make_folder(folder: Path) -> None:
    """Make a folder if it is not there, and those above it that are missing.

    Raises:
        OSError: it cannot be made, or is no folder.
    """
    # Path.mkdir gives its mode to the last folder only.
    for parent in reversed(folder.parents):
        if not parent.exists():
            parent.mkdir(FOLDER_MODE, exist_ok=True)
    folder.mkdir(FOLDER_MODE, exist_ok=True)


def open_to_write(file: Path) -> BinaryIO:
    """The file, emptied or made, open for bytes."""
    return open(file, "wb", opener=lambda path, flags: os.open(path, flags, FILE_MODE))


def write(file: Path, content: bytes) -> None:
    """Fill the file, or make it."""
    with open_to_write(file) as stream:
        stream.write(content)


def make_empty(file: Path, mode: int = FILE_MODE) -> None:
    """Make the file if it is not there, for a library that would make it for everybody."""
    file.touch(mode)


def keep_to_owner(file: Path) -> None:
    """Take a file that a library has just made from everybody else."""
    if os.name == "posix":
        with suppress(OSError):  # A file system without modes, or a file of somebody else.
            file.chmod(FILE_MODE)
