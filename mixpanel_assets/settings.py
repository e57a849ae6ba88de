"""What the environment says: credentials, addresses and places. Nothing else in the package reads os.environ, though
own_process.py and cli/demo.py set it, and requests takes a proxy from it (http.py).

Read when a run needs it, never at import, so definitions load on a machine where nothing is set. Settings of one sync
(filters, page size) are run config and live beside their asset.
"""

import datetime
import os
from pathlib import Path
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from mixpanel_assets.errors import ConfigurationError, MissingCredentialsError
from mixpanel_assets.mixpanel.project import Project
from mixpanel_assets.mixpanel.property_filter import PropertyFilter

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
DEFAULT_EVENTS_START_DATE = "2024-01-01"


def project(workspace_id: str = "") -> Project:
    """The project that the `MP_*` variables name, as `workspace_id` shows it; empty: as `MP_WORKSPACE_ID` says.

    Raises:
        ConfigurationError: a variable is missing or malformed.
    """
    missing = [name for name in ("MP_USERNAME", "MP_SECRET", "MP_PROJECT_ID") if not _variable(name)]
    if missing:
        raise MissingCredentialsError(
            f"{', '.join(missing)} not set: export the service account's MP_USERNAME and MP_SECRET, and MP_PROJECT_ID"
        )
    project_id = _variable("MP_PROJECT_ID")
    if not project_id.isdigit():
        raise ConfigurationError("MP_PROJECT_ID must be the project's number, as in its URL: digits only")
    workspace_id = workspace_id.strip() or _variable("MP_WORKSPACE_ID")
    if workspace_id and not (workspace_id.isascii() and workspace_id.isdigit()):
        raise ConfigurationError("MP_WORKSPACE_ID must be the number of a Data View, as in its URL: digits only")
    return Project(
        username=_variable("MP_USERNAME"),
        secret=_variable("MP_SECRET"),
        project_id=project_id,
        query_url=_base_url("MP_QUERY_URL", QUERY_URLS),
        export_url=_base_url("MP_EXPORT_URL", EXPORT_URLS),
        workspace_id=workspace_id,
    )


def home() -> Path:
    """DAGSTER_HOME, or `dagster_home` in the current directory when it is not set."""
    return Path(_variable("DAGSTER_HOME") or "dagster_home").expanduser().absolute()


def duckdb_path() -> Path:
    """The DuckDB file that assets are stored in: `MP_DUCKDB_PATH`, or `mixpanel.duckdb` in DAGSTER_HOME."""
    configured = _variable("MP_DUCKDB_PATH")
    return Path(configured).expanduser().absolute() if configured else home() / "mixpanel.duckdb"


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
        parts = urlsplit(configured)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigurationError(f"{override} is not an http(s) URL")
        if parts.username or parts.password:
            raise ConfigurationError(f"{override} must not hold credentials: use MP_USERNAME and MP_SECRET")
        return configured.rstrip("/")
    region = (_variable("MP_REGION") or "us").lower()
    if region not in by_region:
        raise ConfigurationError(f"MP_REGION {region!r} is unknown: use one of {', '.join(by_region)}")
    return by_region[region]
