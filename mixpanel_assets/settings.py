"""What the environment says: credentials, addresses and places. Nothing else in the package reads os.environ, though
process_setup.py and cli/demo.py set it, and requests takes a proxy from it (http.py).

Read when a run needs it, never at import, so definitions load on a machine where nothing is set. Settings of one sync
(filters, page size) are run config and live beside their asset.
"""

import datetime
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec

from mixpanel_assets.client.project import Project
from mixpanel_assets.client.property_filter import PropertyFilter
from mixpanel_assets.database_address import LakeAddress, database_address
from mixpanel_assets.errors import ConfigurationError, MissingCredentialsError
from mixpanel_assets.local_paths import database_file, folder

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
APP_URLS = {
    "us": "https://mixpanel.com/api/app",
    "eu": "https://eu.mixpanel.com/api/app",
    "in": "https://in.mixpanel.com/api/app",
}
# Of the tables, and of the asset keys.
SCHEMA = "mixpanel"
DUCKDB_FILE = "mixpanel_data.duckdb"
# DuckDB names a database after its file, and the schema is `mixpanel` too.
FORMER_DUCKDB_FILE = "mixpanel.duckdb"
DEFAULT_EVENTS_START_DATE = "2024-01-01"
EVENT_TIMES = ("utc", "project")
PROPERTY_LISTS = ("MP_INCLUDE_PROPERTIES", "MP_EXCLUDE_PROPERTIES", "MP_HASH_PROPERTIES")
# What is said of one project says nothing of another.
_OF_ONE_PROJECT = frozenset({"MP_GROUPS", "MP_WORKSPACE_ID", "MP_HOURLY_QUERIES", "MP_HOURLY_EXPORTS"})


@dataclass(frozen=True)
class Variables:
    """The `MP_*` variables as one Mixpanel project has them; without arguments they are the environment's.

    Attributes:
        given: Values that were given in code, by the variable that they stand for.
        read_from: Variables that are read in place of others, by those others.
    """

    given: Mapping[str, str] = field(default_factory=dict)
    read_from: Mapping[str, str] = field(default_factory=dict)

    def __getitem__(self, name: str) -> str:
        """The value, without blanks around it; empty where there is none."""
        if name in _OF_ONE_PROJECT and "MP_PROJECT_ID" in self and name not in self:
            return ""
        return self.given.get(name) or _variable(self.read_from.get(name, name))

    def __contains__(self, name: str) -> bool:
        """Whether it is the project's own."""
        return bool(self.given.get(name)) or name in self.read_from

    def called(self, name: str) -> str:
        """What people know it by: the variable that is read, or the argument that gave it."""
        return name.removeprefix("MP_").lower() if self.given.get(name) else self.read_from.get(name, name)


ENVIRONMENT = Variables()


def project(workspace_id: int | None = None, variables: Variables = ENVIRONMENT) -> Project:
    """The project that the `MP_*` variables name, as a Data View shows it, by default that of `MP_WORKSPACE_ID`.

    Raises:
        ConfigurationError: a variable is missing or malformed.
    """
    needed = ("MP_USERNAME", "MP_SECRET", "MP_PROJECT_ID")
    missing = [variables.called(name) for name in needed if not variables[name]]
    if missing:
        username, secret, project_id = map(variables.called, needed)
        raise MissingCredentialsError(
            f"{', '.join(missing)} not set: export the service account's {username} and {secret}, and {project_id}; "
            "without an account, try: mp demo"
        )
    return Project(
        username=variables["MP_USERNAME"],
        secret=variables["MP_SECRET"],
        project_id=_project_id(variables),
        query_url=_query_url(variables),
        export_url=_export_url(variables),
        app_url=_app_url(variables),
        workspace_id=str(workspace_id or _workspace_id(variables)),
        names={name: variables.called(name) for name in (*variables.given, *variables.read_from)},
    )


def check_given(variables: Variables) -> None:
    """Refuse values that were given in code; the others are looked at when a run needs them.

    Raises:
        ConfigurationError: one line that names the setting.
    """
    checks: Mapping[str, Callable[[Variables], object]] = {
        "MP_PROJECT_ID": _project_id,
        "MP_WORKSPACE_ID": _workspace_id,
        "MP_REGION": _region,
        "MP_QUERY_URL": _query_url,
        "MP_EXPORT_URL": _export_url,
        "MP_APP_URL": _app_url,
        "MP_TIMEZONE": timezone,
        "MP_EVENTS_START_DATE": events_start_date,
        "MP_EVENT_TIMES": event_times,
        "MP_GROUPS": groups,
        **dict.fromkeys(PROPERTY_LISTS, lambda variables: property_filter(variables).check()),
    }
    for name, check in checks.items():
        if variables.given.get(name):
            check(variables)


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


def database() -> Path | LakeAddress:
    """Where the tables are: what `MP_DATABASE` names, a DuckDB file or a DuckLake; or `mixpanel_data.duckdb` in
    DAGSTER_HOME. `MP_DUCKDB_PATH` names a file alone.

    Where only a file of the former default name is there, it is that one.

    Raises:
        ConfigurationError: neither a file of this machine nor a DuckLake, or both variables are set.
    """
    setting, named = _named_database()
    if setting == "MP_DUCKDB_PATH":
        return database_file(setting, named)
    if not named:
        present, former = home() / DUCKDB_FILE, home() / FORMER_DUCKDB_FILE
        named = str(former if former.exists() and not present.exists() else present)
    return database_address(setting, named, "MP_DATA_PATH", _variable("MP_DATA_PATH"))


def former_duckdb_path() -> Path | None:
    """The default file's former name; None where a variable names what is used."""
    _, named = _named_database()
    return None if named else home() / FORMER_DUCKDB_FILE


def _named_database() -> tuple[str, str]:
    """The variable that says where the tables are, and its value; empty where none does."""
    general, of_file = _variable("MP_DATABASE"), _variable("MP_DUCKDB_PATH")
    if general and of_file:
        raise ConfigurationError("MP_DATABASE and MP_DUCKDB_PATH are both set: unset MP_DUCKDB_PATH")
    return ("MP_DUCKDB_PATH", of_file) if of_file else ("MP_DATABASE", general)


@dataclass(frozen=True)
class S3Settings:
    """What the environment says of S3, beside what DuckDB reads itself.

    Attributes:
        endpoint: Host and port of another server than Amazon's; empty: none.
        is_encrypted: Whether that speaks TLS.
        has_key: Whether a key is in the environment; else it comes from a profile, a role, or the like.
    """

    endpoint: str = ""
    is_encrypted: bool = True
    has_key: bool = False


def s3() -> S3Settings:
    """By the variables that Amazon's own tools read."""
    parts = urlsplit(_variable("AWS_ENDPOINT_URL_S3") or _variable("AWS_ENDPOINT_URL"))
    return S3Settings(parts.netloc, parts.scheme != "http", bool(_variable("AWS_ACCESS_KEY_ID")))


def staging_place() -> str:
    """Where fetched pages wait: `MP_STAGING_URL`, or `staging` in DAGSTER_HOME."""
    return _variable("MP_STAGING_URL") or str(home() / "staging")


def read_copy_path() -> Path | None:
    """The copy of the DuckDB file that is renewed after each sync, `MP_READ_COPY`; None: no copy is made.

    Raises:
        ConfigurationError: not a file of this machine.
    """
    named = _variable("MP_READ_COPY")
    return database_file("MP_READ_COPY", named) if named else None


def timezone(variables: Variables = ENVIRONMENT) -> ZoneInfo:
    """The project's time zone, `MP_TIMEZONE`, in which Mixpanel counts its days.

    Raises:
        ConfigurationError: the zone is unknown.
    """
    name = variables["MP_TIMEZONE"] or "UTC"
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigurationError(
            f"{variables.called('MP_TIMEZONE')} {name!r} is not a known time zone: use a name such as Europe/Berlin"
        ) from None


def event_times(variables: Variables = ENVIRONMENT) -> str:
    """What `time` of an event is, `MP_EVENT_TIMES`: utc, or project for the wall clock of `MP_TIMEZONE`.

    Raises:
        ConfigurationError: neither.
    """
    return checked_event_times(variables.called("MP_EVENT_TIMES"), variables["MP_EVENT_TIMES"] or EVENT_TIMES[0])


def checked_event_times(name: str, chosen: str) -> str:
    """The choice, if it is one.

    Raises:
        ConfigurationError: one line that names the setting.
    """
    if chosen not in EVENT_TIMES:
        raise ConfigurationError(f"{name} must be {' or '.join(EVENT_TIMES)}, not {chosen!r}")
    return chosen


def hash_salt(variables: Variables = ENVIRONMENT) -> str:
    """What makes hashed properties hard to guess, `MP_HASH_SALT`: a secret; by default there is none."""
    return variables["MP_HASH_SALT"]


def hourly_queries(variables: Variables = ENVIRONMENT) -> int | None:
    """The project's queries per hour, where they are known to differ from 60: `MP_HOURLY_QUERIES`.

    Raises:
        ConfigurationError: not a number from 1.
    """
    return _count("MP_HOURLY_QUERIES", variables)


def hourly_exports(variables: Variables = ENVIRONMENT) -> int | None:
    """The same for exports: `MP_HOURLY_EXPORTS`."""
    return _count("MP_HOURLY_EXPORTS", variables)


def property_filter(variables: Variables = ENVIRONMENT) -> PropertyFilter:
    """Which properties may be kept, in all syncs of a project: `MP_INCLUDE_PROPERTIES`, `MP_EXCLUDE_PROPERTIES` and
    `MP_HASH_PROPERTIES`, each names with commas between, or a JSON list of names.

    Raises:
        ConfigurationError: a list cannot be read.
    """
    include, exclude, hashed = (_names(f"MP_{what}_PROPERTIES", variables) for what in ("INCLUDE", "EXCLUDE", "HASH"))
    return PropertyFilter(include or None, exclude, hashed)


def events_start_date(variables: Variables = ENVIRONMENT) -> datetime.date:
    """The first partition of `mixpanel/events`: `MP_EVENTS_START_DATE`.

    Raises:
        ConfigurationError: not an ISO date.
    """
    text = variables["MP_EVENTS_START_DATE"] or DEFAULT_EVENTS_START_DATE
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        name = variables.called("MP_EVENTS_START_DATE")
        raise ConfigurationError(f"{name} {text!r} is not a date: write it as 2024-01-31") from None


def groups(variables: Variables = ENVIRONMENT) -> dict[str, str]:
    """The kinds of groups to fetch, `MP_GROUPS`: their names, each with its data_group_id as text. Written as
    `company=-1405123841946871899,team=5`, or as a JSON object.

    Raises:
        ConfigurationError: it cannot be read.
    """
    text = variables["MP_GROUPS"]
    if not text:
        return {}
    try:
        # A number in JSON is read as it is written: a float would have lost its last digits.
        listed = msgspec.json.decode(text, type=dict[str, str | int]) if text.startswith("{") else _pairs(text)
    except (msgspec.MsgspecError, ValueError):
        raise ConfigurationError(
            f"{variables.called('MP_GROUPS')} names no groups: write it as company=-1405123841946871899,team=5"
        ) from None
    return {name: str(number) for name, number in listed.items()}


def _pairs(text: str) -> dict[str, str]:
    pairs = [each.rpartition("=") for each in text.split(",") if each.strip()]
    found = {name.strip(): number.strip() for name, equals, number in pairs if equals}
    if len(found) < len(pairs):
        raise ValueError("a part that is no pair, or a name twice")
    return found


def _names(variable: str, variables: Variables) -> tuple[str, ...]:
    text = variables[variable]
    # What begins otherwise is meant to be JSON: taken for a name, it would leave everything in.
    if not text.startswith(("[", "{", '"', "'")):
        return tuple(name.strip() for name in text.split(",") if name.strip())
    try:
        return tuple(msgspec.json.decode(text, type=list[str]))
    except msgspec.MsgspecError:
        name = variables.called(variable)
        raise ConfigurationError(f'{name} is no list of names: write it as ["$email", "$phone"]') from None


def _count(name: str, variables: Variables) -> int | None:
    text = variables[name]
    if text and (not text.isdecimal() or int(text) < 1):
        raise ConfigurationError(f"{variables.called(name)} {text!r} is not a number of requests: write it as 240")
    return int(text) if text else None


def _variable(name: str) -> str:
    return os.environ.get(name, "").strip()


def _project_id(variables: Variables) -> str:
    project_id = variables["MP_PROJECT_ID"]
    if not project_id.isdigit():
        raise ConfigurationError(
            f"{variables.called('MP_PROJECT_ID')} must be the project's number, as in its URL: digits only"
        )
    return project_id


def _workspace_id(variables: Variables) -> str:
    view = variables["MP_WORKSPACE_ID"]
    if view and not (view.isascii() and view.isdigit()):
        raise ConfigurationError(
            f"{variables.called('MP_WORKSPACE_ID')} must be the number of a Data View, as in its URL: digits only"
        )
    return view


def _query_url(variables: Variables) -> str:
    return _own_url("MP_QUERY_URL", variables) or QUERY_URLS[_region(variables)]


def _export_url(variables: Variables) -> str:
    return _own_url("MP_EXPORT_URL", variables) or EXPORT_URLS[_region(variables)]


def _app_url(variables: Variables) -> str:
    return _own_url("MP_APP_URL", variables) or APP_URLS[_region(variables)]


def _own_url(name: str, variables: Variables) -> str:
    """The URL that replaces the region's; empty where the region tells."""
    url = variables[name]
    # A region that is the project's own says more of it than an address that is everybody's.
    if not url or ("MP_REGION" in variables and name not in variables):
        return ""
    _check_url(variables.called(name), url)
    return url.rstrip("/")


def _region(variables: Variables) -> str:
    region = (variables["MP_REGION"] or "us").lower()
    if region not in QUERY_URLS:
        raise ConfigurationError(
            f"{variables.called('MP_REGION')} {region!r} is unknown: use one of {', '.join(QUERY_URLS)}"
        )
    return region


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
