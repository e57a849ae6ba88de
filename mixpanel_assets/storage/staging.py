"""Where fetched data wait between Mixpanel and the tables: small files in folders, each whole or absent.

A file's key is `<stream>/<folder>/<name>`. Two kinds of places: a folder of this machine, here; and a bucket that
several machines share (object_staging.py).

Belongs here: how a file is written, read, taken over and deleted, for any stream. Does not belong here: what the
files of a stream are (streams/*/staged.py).
"""

import os
import shutil
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
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
# Where values lie on their way between steps: `handles/<run>/...`.
HANDLES_FOLDER = "handles"


@dataclass(frozen=True)
class StagedFolder:
    """A folder of one sync, or one run.

    Attributes:
        key: `<stream>/<name>`.
        touched_at: When something in it was last written, in seconds since 1970.
    """

    key: str
    touched_at: float

    @property
    def stream(self) -> str:
        """Whose it is; `handles` are a stream too."""
        return self.key.split("/")[0]

    @property
    def name(self) -> str:
        """Of a snapshot, or of a run."""
        return self.key.split("/", 1)[1]


class Staging(ABC):
    """A place for them. Folders need not be made, and are gone with their last file."""

    @abstractmethod
    def prepare(self, stream: str) -> None:
        """See that files can be written and deleted, before anything is asked for.

        Raises:
            WarehouseError: they cannot; one line that says what to do.
        """

    @abstractmethod
    def put(self, key: str, content: bytes | Iterable[bytes]) -> None:
        """A file that appears under its key when all of it is written: at once, or in parts.

        Raises:
            WarehouseError: the place takes no more.
        """

    @abstractmethod
    def put_file(self, key: str, file: Path) -> None:
        """Give a finished file of the working folder to the place, under a key."""

    @abstractmethod
    def get(self, key: str) -> bytes | None:
        """What a file holds; None where there is none."""

    @abstractmethod
    def size(self, key: str) -> int | None:
        """Its bytes; None where there is none."""

    @abstractmethod
    def names(self, folder: str) -> list[str]:
        """The names of the files in a folder, in order; none where it is not there."""

    @abstractmethod
    def take(self, key: str) -> bool:
        """Delete a file. Of several who try, in whatever process, one is told that it did."""

    @abstractmethod
    def move(self, key: str, to: str) -> None:
        """Give a file another key.

        Raises:
            FileNotFoundError: there is none.
        """

    @abstractmethod
    def delete(self, keys: Iterable[str]) -> None:
        """Delete files. What cannot be deleted now is left to `sweep`: Windows keeps a file that somebody reads."""

    @abstractmethod
    def folders(self) -> list[StagedFolder]:
        """Those of all syncs, of all streams; none of another project."""

    @abstractmethod
    def delete_folder(self, folder: str) -> None:
        """Delete a folder with all that is in it."""

    @abstractmethod
    def working_folder(self, folder: str) -> Path:
        """A folder of this machine in which files are made before they are put; it is there."""

    @abstractmethod
    def local(self, keys: Iterable[str]) -> AbstractContextManager["LocalStaging"]:
        """These files in a folder of this machine, for DuckDB's readers, until the end of the block."""

    def claim(self, folder: str, run_id: str) -> None:
        """Note a run that works with a folder: its files are nobody's once all such runs are over."""
        self.put(f"{folder}/{run_id}{_CLAIM}", b"")

    def claimants(self, folder: str) -> frozenset[str]:
        """The runs that claimed a folder."""
        return frozenset(name.removesuffix(_CLAIM) for name in self.names(folder) if name.endswith(_CLAIM))

    def sweep(self) -> list[StagedFolder]:
        """Delete folders that nothing has touched for `KEEP_SECONDS`. Returns the others."""
        oldest = time.time() - KEEP_SECONDS
        young = []
        for folder in self.folders():
            if folder.touched_at > oldest:
                young.append(folder)
            else:
                self.delete_folder(folder.key)
        return young


@dataclass(frozen=True)
class LocalStaging(Staging):
    """A folder of this machine. What is staged is personal data: only the user who syncs may read it.

    Attributes:
        root: The folder.
    """

    root: Path

    def path(self, key: str) -> Path:
        """Where a file or a folder is."""
        return self.root / key

    def prepare(self, stream: str) -> None:
        probe = self.working_folder(stream) / f"writable-{uuid.uuid4().hex[:8]}"
        _write_whole(probe, b"?")
        probe.unlink()

    def put(self, key: str, content: bytes | Iterable[bytes]) -> None:
        file = self.path(key)
        with disk_errors(file):
            private_files.make_folder(file.parent)
        _write_whole(file, content)

    def put_file(self, key: str, file: Path) -> None:
        with disk_errors(self.path(key)):
            file.replace(self.path(key))

    def get(self, key: str) -> bytes | None:
        try:
            return self.path(key).read_bytes()
        except FileNotFoundError:
            return None

    def size(self, key: str) -> int | None:
        try:
            return self.path(key).stat().st_size
        except FileNotFoundError:
            return None

    def names(self, folder: str) -> list[str]:
        return sorted(file.name for file in self.path(folder).glob("*"))

    def take(self, key: str) -> bool:
        taken = self.path(key).with_name(f"{uuid.uuid4().hex}.partial")
        try:
            self.path(key).replace(taken)
        except FileNotFoundError:
            return False
        taken.unlink()
        return True

    def move(self, key: str, to: str) -> None:
        private_files.make_folder(self.path(to).parent)
        self.path(key).replace(self.path(to))

    def delete(self, keys: Iterable[str]) -> None:
        for file in map(self.path, keys):
            with suppress(OSError):
                file.unlink(missing_ok=True)
            with suppress(OSError):
                file.parent.rmdir()

    def folders(self) -> list[StagedFolder]:
        found = []
        for folder in self.root.glob("*/*"):
            if folder.parent.name != PROJECTS_FOLDER:
                with suppress(FileNotFoundError):  # another run swept it
                    found.append(StagedFolder(f"{folder.parent.name}/{folder.name}", folder.stat().st_mtime))
        return found

    def delete_folder(self, folder: str) -> None:
        path = self.path(folder)
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)

    def working_folder(self, folder: str) -> Path:
        path = self.path(folder)
        with disk_errors(path / "file"):
            private_files.make_folder(path)
        return path

    @contextmanager
    def local(self, keys: Iterable[str]) -> Iterator["LocalStaging"]:
        yield self


def local_path(staging: Staging, key: str) -> Path:
    """Where a file is; of a place on this machine, as `Staging.local` makes one of any.

    Raises:
        TypeError: it is elsewhere.
    """
    if not isinstance(staging, LocalStaging):
        raise TypeError(f"{key} is not on this machine")
    return staging.path(key)


def read_manifest(staging: Staging, key: str, decoder: "msgspec.json.Decoder[T]") -> T | None:
    """What a manifest holds; None if it is not there, or no longer what this version writes."""
    content = staging.get(key)
    try:
        return None if content is None else decoder.decode(content)
    except msgspec.MsgspecError:
        return None


def _write_whole(file: Path, content: bytes | Iterable[bytes]) -> None:
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
