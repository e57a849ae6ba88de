"""Staged files as objects in a bucket, which several machines share: S3, Google's or Azure's, through obstore.

An object is whole or absent by itself. Which of several runs takes a file over is settled by an object that only one of
them can make. Credentials come by obstore's own chain: the variables of each cloud, or the account of the machine.
"""

import re
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from mixpanel_assets import private_files, settings
from mixpanel_assets.client.server_text import one_line
from mixpanel_assets.errors import ConfigurationError, WarehouseError
from mixpanel_assets.storage.staging import PROJECTS_FOLDER, LocalStaging, StagedFolder, Staging, disk_errors

# An unreachable bucket is said to be one after some ten seconds; a server that asks to wait is obeyed so long.
_CONNECT_SECONDS = 5
_RETRIES: Any = {"max_retries": 4, "retry_timeout": timedelta(seconds=60)}
_MOST_CHARACTERS = 300
_REFUSED = re.compile(r"PermissionDenied|Unauthenticated|access ?denied|forbidden", re.IGNORECASE)


def bucket(setting: str, url: str) -> Any:
    """obstore's own store for a URL. Nothing is asked of it.

    Raises:
        ConfigurationError: obstore is not installed, or makes nothing of the URL.
    """
    try:
        from obstore.exceptions import BaseError
        from obstore.store import from_url
    except ImportError:
        raise ConfigurationError(
            f"{setting} needs another package: pip install 'mixpanel-assets[object-store]'"
        ) from None
    options: Any = {"connect_timeout": f"{_CONNECT_SECONDS}s", "allow_http": not settings.s3().is_encrypted}
    try:
        return from_url(url, client_options=options, retry_config=_RETRIES)
    except (BaseError, ValueError) as error:
        raise ConfigurationError(f"{setting} cannot be used: {_reason(error)}") from None


@dataclass(frozen=True)
class ObjectStaging(Staging):
    """A folder of a bucket.

    Attributes:
        store: obstore's.
        url: What people know it by; it holds no secret.
        working: Where files are made on this machine before they are put, and kept while they are loaded.
    """

    store: Any
    url: str
    working: LocalStaging

    def prepare(self, stream: str) -> None:
        self.working.prepare(stream)
        self.working.sweep()
        probe = f"{stream}/writable-{uuid.uuid4().hex[:8]}"
        self.put(probe, b"?")
        with self._said("delete"):
            _obstore().delete(self.store, probe)

    def put(self, key: str, content: bytes | Iterable[bytes]) -> None:
        if isinstance(content, bytes):
            self._put(key, content)
            return
        place = self.working.working_folder("uploads")
        with disk_errors(place / key), tempfile.TemporaryFile(dir=place) as file:
            file.writelines(content)
            file.seek(0)
            self._put(key, file)

    def put_file(self, key: str, file: Path) -> None:
        self._put(key, file)
        file.unlink(missing_ok=True)

    def _put(self, key: str, content: Any) -> None:
        with self._said("write"):
            try:
                _obstore().put(self.store, key, content)
            except FileNotFoundError:
                raise WarehouseError(
                    f"cannot stage in {self.url}: there is no such bucket; set MP_STAGING_URL"
                ) from None

    def get(self, key: str) -> bytes | None:
        with self._said("read"):
            try:
                return bytes(_obstore().get(self.store, key).bytes())
            except FileNotFoundError:
                return None

    def size(self, key: str) -> int | None:
        with self._said("read"):
            try:
                return int(_obstore().head(self.store, key)["size"])
            except FileNotFoundError:
                return None

    def names(self, folder: str) -> list[str]:
        return sorted(entry["path"].removeprefix(f"{folder}/") for entry in self._objects(f"{folder}/"))

    def take(self, key: str) -> bool:
        # Who makes it takes the file, which is gone before it is: nobody else is told that it took it.
        claim = f"{key}.taken"
        with self._said("write"):
            try:
                _obstore().put(self.store, claim, b"", mode="create")
            except self._errors().AlreadyExistsError:
                return False
        try:
            there = self.size(key) is not None
            if there:
                with self._said("delete"):
                    _obstore().delete(self.store, key)
            return there
        finally:
            self.delete([claim])

    def move(self, key: str, to: str) -> None:
        with self._said("write"):
            _obstore().copy(self.store, key, to)
        self.delete([key])

    def delete(self, keys: Iterable[str]) -> None:
        listed = list(keys)
        if not listed:
            return
        with suppress(WarehouseError), self._said("delete"):
            try:
                _obstore().delete(self.store, listed)
            except FileNotFoundError:  # Google's and Azure's say so; S3 does not.
                for key in listed:
                    with suppress(FileNotFoundError):
                        _obstore().delete(self.store, key)

    def folders(self) -> list[StagedFolder]:
        touched: dict[str, float] = {}
        for entry in self._objects():
            stream, *name = entry["path"].split("/")[:2]
            if name and stream != PROJECTS_FOLDER:
                folder = f"{stream}/{name[0]}"
                touched[folder] = max(touched.get(folder, 0.0), entry["last_modified"].timestamp())
        return [StagedFolder(folder, at) for folder, at in touched.items()]

    def delete_folder(self, folder: str) -> None:
        self.delete([entry["path"] for entry in self._objects(f"{folder}/")])
        self.delete([folder])
        self.working.delete_folder(folder)

    def working_folder(self, folder: str) -> Path:
        return self.working.working_folder(folder)

    @contextmanager
    def local(self, keys: Iterable[str]) -> Iterator[LocalStaging]:
        place = LocalStaging(self.working.working_folder(f"loads/{uuid.uuid4().hex}"))
        try:
            for key in keys:
                self._fetch(key, place.path(key))
            yield place
        finally:
            shutil.rmtree(place.root, ignore_errors=True)

    def _fetch(self, key: str, file: Path) -> None:
        private_files.make_folder(file.parent)
        with self._said("read"), disk_errors(file), private_files.open_to_write(file) as stream:
            try:
                stream.writelines(_obstore().get(self.store, key).stream())
            except FileNotFoundError:
                raise WarehouseError(f"{self.url}/{key} is gone, so nothing was stored: sync again") from None

    def _objects(self, prefix: str | None = None) -> Iterator[Any]:
        with self._said("list"):
            for entries in _obstore().list(self.store, prefix):
                yield from entries

    @contextmanager
    def _said(self, what: str) -> Iterator[None]:
        """What obstore raises as one line that says what to do."""
        try:
            yield
        except self._errors().BaseError as error:
            refused = _REFUSED.search(f"{type(error).__name__} {error}")
            reason = f"it does not let this account {what}" if refused else _reason(error)
            raise WarehouseError(f"cannot stage in {self.url}: {reason}; see to it, or set MP_STAGING_URL") from None

    @staticmethod
    def _errors() -> Any:
        from obstore import exceptions

        return exceptions


def _obstore() -> Any:
    import obstore

    return obstore


def _reason(error: Exception) -> str:
    """The first line of obstore's words, without the query of a URL, in which Azure has its signature."""
    text = next(iter(str(error).splitlines()), type(error).__name__)
    return one_line(" ".join(word.split("?")[0] for word in text.split(" ")), _MOST_CHARACTERS)
