"""Files and folders of this machine that a setting names, refused before the first request if they cannot be."""

import os
import re
import stat
from pathlib import Path

from mixpanel_assets.errors import ConfigurationError

# A place that is not of this machine, such as s3: or md:, and DuckDB's :memory:. One letter is a drive of Windows. That
# a file of that name is there changes nothing: earlier versions made one of md:, and rows would go on into it.
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:|:\w*:?")
_KINDS = (
    (stat.S_ISREG, "file"),
    (stat.S_ISDIR, "folder"),
    (stat.S_ISFIFO, "pipe"),
    (stat.S_ISSOCK, "socket"),
    (stat.S_ISCHR, "device"),
    (stat.S_ISBLK, "device"),
)


def database_file(setting: str, text: str) -> Path:
    """The DuckDB file that a setting names, there or not yet.

    Raises:
        ConfigurationError: what is there is no regular file, such as a pipe, which would be waited for without end; or
            no path of this machine is named.
    """
    path = _path(setting, text, "file")
    kind = _kind_of(path)
    if kind not in (None, "file"):
        raise ConfigurationError(f"{path} is a {kind}: set {setting} to a file")
    if text.endswith(("/", os.sep)):
        raise ConfigurationError(f"{setting} ends like a folder: add the name of a file to {text}")
    return path


def folder(setting: str, text: str) -> Path:
    """The folder that a setting names, there or not yet.

    Raises:
        ConfigurationError: what is there is no folder, or no path of this machine is named.
    """
    path = _path(setting, text, "folder")
    kind = _kind_of(path)
    if kind not in (None, "folder"):
        raise ConfigurationError(f"{path} is a {kind}: set {setting} to a folder")
    return path


def _path(setting: str, text: str, what: str) -> Path:
    scheme = _SCHEME.match(text)
    if scheme:
        raise ConfigurationError(
            f"{setting} begins with {scheme[0]!r}: set it to a {what} of this machine (one of that name: ./ before it)"
        )
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:  # The home of somebody who is not known here.
        raise ConfigurationError(f"{setting} begins with the home of nobody: write the {what} out") from None


def _kind_of(path: Path) -> str | None:
    """What lies there; None where nothing does, or it cannot be told, as opening it will say why."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return None
    return next((kind for is_kind, kind in _KINDS if is_kind(mode)), "thing of another kind")
