"""Files that wait between Mixpanel and DuckDB: each whole or absent, each for its owner alone.

Belongs here: how a file is written, read, claimed and deleted, for any stream. Does not belong here: what the
files of a stream are (streams/*/staged.py).
"""

import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec

from mixpanel_assets import private_files
from mixpanel_assets.errors import WarehouseError

T = TypeVar("T")


# A partial snapshot waits so long for its failed pages to be fetched; Mixpanel's session is gone long before.
KEEP_SECONDS = 7 * 24 * 3600
_CLAIM = ".run"
# In it each further project of a code location has a folder like the one that it lies in.
PROJECTS_FOLDER = "projects"


def prepare(folder: Path) -> None:
    """See that files can be staged in a folder, before anything is asked for.

    Raises:
        WarehouseError: the folder cannot be made or written.
    """
    with disk_errors(folder):
        private_files.make_folder(folder)
    probe = folder / f"writable-{uuid.uuid4().hex[:8]}"
    write_whole(probe, b"?")
    probe.unlink()


def claim(folder: Path, run_id: str) -> None:
    """Note a run that works with the files of a folder: they are nobody's once all such runs are over."""
    with disk_errors(folder):
        (folder / f"{run_id}{_CLAIM}").touch(private_files.FILE_MODE)


def claimants(folder: Path) -> frozenset[str]:
    """The runs that claimed a folder."""
    return frozenset(file.name.removesuffix(_CLAIM) for file in folder.glob(f"*{_CLAIM}"))


def staged_folders(root: Path) -> list[Path]:
    """The folders of a project's syncs, of all streams; none of another project."""
    return [folder for folder in root.glob("*/*") if folder.parent.name != PROJECTS_FOLDER]


def sweep(root: Path) -> None:
    """Delete staged folders that nothing has touched for `KEEP_SECONDS`."""
    for folder in staged_folders(root):
        try:
            if time.time() - folder.stat().st_mtime > KEEP_SECONDS:
                shutil.rmtree(folder, ignore_errors=True)
        except FileNotFoundError:  # another run swept it first
            continue


def read_manifest(file: Path, decoder: "msgspec.json.Decoder[T]") -> T | None:
    """What a manifest holds; None if it is not there, or no longer what this version writes."""
    try:
        return decoder.decode(file.read_bytes())
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def write_whole(file: Path, content: bytes | Iterable[bytes]) -> None:
    """A file that appears under its name when all of it is written: at once, or in parts."""
    partial = file.with_suffix(f".{uuid.uuid4().hex[:8]}.partial")
    with disk_errors(file):
        try:
            with private_files.open_to_write(partial) as stream:
                stream.writelines([content] if isinstance(content, bytes) else content)
            partial.replace(file)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


@contextmanager
def disk_errors(place: Path) -> Iterator[None]:
    """A full or forbidden disk as one line that says what to do."""
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise WarehouseError(
            f"cannot stage in {place.parent}: {reason}; free space or choose another DAGSTER_HOME"
        ) from None
