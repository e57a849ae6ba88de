"""What the environment says: credentials, addresses and places. Nothing else in the package reads os.environ, though
process_setup.py and cli/demo.py set it, and requests takes a proxy from it (http.py).

Read when a run needs it, never at import, so definitions load on a machine where nothing is set. Settings of one sync
(filters, page size) are run config and live beside their asset.
"""

import datetime
import os
import re
import stat
from pathlib import Path
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from mixpanel_assets.client.project import Project
from mixpanel_assets.client.property_filter import PropertyFilter
from mixpanel_assets.errors import ConfigurationError, MissingCredentialsError

QUERY_URLS = {
    "us": "https://mixpanel.com/api/query",
    "eu": "https://eu.mixpanel.com/api/query",
    "in": "https://in.mixpanel.com/api/query",
}
EXPORT_URLS = {
    "us": "https://data.mixpanel.com/api/2.0",
    "eu": "https://data-eu.mixpanel.com/api/2.0",
    "in": "https://data-in.mixpanel.com/api/2.0",
}
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
APP_URLS = {
    "us": "https://mixpanel.com/api/app",
    "eu": "https://eu.mixpanel.com/api/app",
    "in": "https://in.mixpanel.com/api/app",
}
DUCKDB_FILE = "mixpanel_data.duckdb"
# DuckDB names a database after its file, and the schema is `mixpanel` too.
FORMER_DUCKDB_FILE = "mixpanel.duckdb"
DEFAULT_EVENTS_START_DATE = "2024-01-01"
EVENT_TIMES = ("utc", "project")


def project(workspace_id: int | None = None) -> Project:
    """The project that the `MP_*` variables name, as a Data View shows it, by default that of `MP_WORKSPACE_ID`.

    Raises:
        ConfigurationError: a variable is missing or malformed.
    """
    missing = [name for name in ("MP_USERNAME", "MP_SECRET", "MP_PROJECT_ID") if not _variable(name)]
    if missing:
        raise MissingCredentialsError(
            f"{', '.join(missing)} not set: export the service account's MP_USERNAME and MP_SECRET, and MP_PROJECT_ID; "
            "without an account, try: mp demo"
        )
    project_id = _variable("MP_PROJECT_ID")
    if not project_id.isdigit():
        raise ConfigurationError("MP_PROJECT_ID must be the project's number, as in its URL: digits only")
    view = str(workspace_id or _variable("MP_WORKSPACE_ID"))
    if view and not (view.isascii() and view.isdigit()):
        raise ConfigurationError("MP_WORKSPACE_ID must be the number of a Data View, as in its URL: digits only")
    return Project(
        username=_variable("MP_USERNAME"),
        secret=_variable("MP_SECRET"),
        project_id=project_id,
        query_url=_base_url("MP_QUERY_URL", QUERY_URLS),
        export_url=_base_url("MP_EXPORT_URL", EXPORT_URLS),
        app_url=_base_url("MP_APP_URL", APP_URLS),
        workspace_id=view,
    )


def read_env_file() -> None:
    """Take the variables of a file `.env` in the current directory.

    They win over those that are set already, as they do where Dagster's commands read it: the same project for both.

    Raises:
        ConfigurationError: it cannot be read.
    """
    file = Path(".env")
    if not file.is_file():
        return
    from dotenv import dotenv_values

    try:
        values = dotenv_values(file)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigurationError(f"cannot read {file.absolute()}: {reason}") from None
    os.environ.update({name: value for name, value in values.items() if value is not None})


def home() -> Path:
    """DAGSTER_HOME, or `dagster_home` in the current directory when it is not set.

    Raises:
        ConfigurationError: not a folder of this machine.
    """
    return folder("DAGSTER_HOME", _variable("DAGSTER_HOME") or "dagster_home")


def duckdb_path() -> Path:
    """The DuckDB file that assets are stored in: `MP_DUCKDB_PATH`, or `mixpanel_data.duckdb` in DAGSTER_HOME.

    Where only a file of the former default name is there, it is that one.

    Raises:
        ConfigurationError: not a file of this machine.
    """
    named = _variable("MP_DUCKDB_PATH")
    if named:
        return database_file("MP_DUCKDB_PATH", named)
    present, former = home() / DUCKDB_FILE, home() / FORMER_DUCKDB_FILE
    only_former = former.exists() and not present.exists()
    return database_file("MP_DUCKDB_PATH", str(former if only_former else present))


def former_duckdb_path() -> Path | None:
    """The default file's former name; None where `MP_DUCKDB_PATH` names the file."""
    return None if _variable("MP_DUCKDB_PATH") else home() / FORMER_DUCKDB_FILE


def read_copy_path() -> Path | None:
    """The copy of the DuckDB file that is renewed after each sync, `MP_READ_COPY`; None: no copy is made.

    Raises:
        ConfigurationError: not a file of this machine.
    """
    named = _variable("MP_READ_COPY")
    return database_file("MP_READ_COPY", named) if named else None


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


def timezone() -> ZoneInfo:
    """The project's time zone, `MP_TIMEZONE`, in which Mixpanel counts its days.

    Raises:
        ConfigurationError: the zone is unknown.
    """
    name = _variable("MP_TIMEZONE") or "UTC"
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigurationError(
            f"MP_TIMEZONE {name!r} is not a known time zone: use a name such as Europe/Berlin"
        ) from None


def event_times() -> str:
    """What `time` of an event is, `MP_EVENT_TIMES`: utc, or project for the wall clock of `MP_TIMEZONE`.

    Raises:
        ConfigurationError: neither.
    """
    return checked_event_times("MP_EVENT_TIMES", _variable("MP_EVENT_TIMES") or EVENT_TIMES[0])


def checked_event_times(name: str, chosen: str) -> str:
    """The choice, if it is one.

    Raises:
        ConfigurationError: one line that names the setting.
    """
    if chosen not in EVENT_TIMES:
        raise ConfigurationError(f"{name} must be {' or '.join(EVENT_TIMES)}, not {chosen!r}")
    return chosen


def hash_salt() -> str:
    """What makes hashed properties hard to guess, `MP_HASH_SALT`: a secret; by default there is none."""
    return _variable("MP_HASH_SALT")


def hourly_queries() -> int | None:
    """The project's queries per hour, where they are known to differ from 60: `MP_HOURLY_QUERIES`.

    Raises:
        ConfigurationError: not a number from 1.
    """
    return _count("MP_HOURLY_QUERIES")


def hourly_exports() -> int | None:
    """The same for exports: `MP_HOURLY_EXPORTS`."""
    return _count("MP_HOURLY_EXPORTS")


def property_filter() -> PropertyFilter:
    """Which properties may be kept, in all syncs: `MP_INCLUDE_PROPERTIES`, `MP_EXCLUDE_PROPERTIES` and
    `MP_HASH_PROPERTIES`, each names with commas between, or a JSON list of names.

    Raises:
        ConfigurationError: a list cannot be read.
    """
    include = _names("MP_INCLUDE_PROPERTIES")
    return PropertyFilter(include or None, _names("MP_EXCLUDE_PROPERTIES"), _names("MP_HASH_PROPERTIES"))


def events_start_date() -> datetime.date:
    """The first partition of `mixpanel/events`: `MP_EVENTS_START_DATE`.

    Raises:
        ConfigurationError: not an ISO date.
    """
    text = _variable("MP_EVENTS_START_DATE") or DEFAULT_EVENTS_START_DATE
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(f"MP_EVENTS_START_DATE {text!r} is not a date: write it as 2024-01-31") from None


def _names(variable: str) -> tuple[str, ...]:
    text = _variable(variable)
    # What begins otherwise is meant to be JSON: taken for a name, it would leave everything in.
    if not text.startswith(("[", "{", '"', "'")):
        return tuple(name.strip() for name in text.split(",") if name.strip())
    try:
        return tuple(msgspec.json.decode(text, type=list[str]))
    except msgspec.MsgspecError:
        raise ConfigurationError(f'{variable} is no list of names: write it as ["$email", "$phone"]') from None


def _count(variable: str) -> int | None:
    text = _variable(variable)
    if text and (not text.isdecimal() or int(text) < 1):
        raise ConfigurationError(f"{variable} {text!r} is not a number of requests: write it as 240")
    return int(text) if text else None


def _variable(name: str) -> str:
    return os.environ.get(name, "").strip()


def _base_url(override: str, by_region: dict[str, str]) -> str:
    configured = _variable(override)
    if configured:
        _check_url(override, configured)
        return configured.rstrip("/")
    region = (_variable("MP_REGION") or "us").lower()
    if region not in by_region:
        raise ConfigurationError(f"MP_REGION {region!r} is unknown: use one of {', '.join(by_region)}")
    return by_region[region]


def _check_url(setting: str, url: str) -> None:
    """Refuse what is no address to which a path can be added. Nothing of it is quoted: it may hold credentials.

    Raises:
        ConfigurationError: in one line.
    """
    try:
        parts = urlsplit(url)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_url = False
    if not is_url or not url.isprintable() or any(character in url for character in " \\"):
        raise ConfigurationError(f"{setting} is not an http(s) URL")
    if "@" in parts.netloc:
        raise ConfigurationError(f"{setting} must not hold credentials: use MP_USERNAME and MP_SECRET")
    if "?" in url or "#" in url:
        raise ConfigurationError(f"{setting} must end with its path: leave out what begins with ? or #")
