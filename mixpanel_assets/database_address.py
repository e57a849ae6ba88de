"""Where the tables are, as a setting has it: a DuckDB file; or a DuckLake, `ducklake:` and its catalogue, and where its
data lie.

Refused here, before the first request: what cannot be one, and passwords, since an address is shown and logged.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from mixpanel_assets import local_paths
from mixpanel_assets.errors import ConfigurationError

_LAKE = "ducklake:"
_MOTHERDUCK = "md:"
_KIND = re.compile(r"(postgres|sqlite|duckdb):")
# As libpq reads them: key=value pairs, or a URL.
_PASSWORD = re.compile(r"password\s*=|://[^/@]*:[^/@]*@", re.IGNORECASE)


@dataclass(frozen=True)
class LakeAddress:
    """Where a DuckLake is.

    Attributes:
        kind: What its catalogue is: postgres, sqlite or duckdb.
        catalogue: The catalogue's file, or how libpq connects to its database.
        data: Its folder or bucket, ending with a /; empty where the catalogue says it.
    """

    kind: str
    catalogue: str
    data: str = ""

    def __str__(self) -> str:
        return f"{_LAKE}{self.kind}:{self.catalogue}"

    @property
    def file(self) -> Path | None:
        """The catalogue, if it is a file."""
        return None if self.kind == "postgres" else Path(self.catalogue)

    @property
    def is_in_bucket(self) -> bool:
        """Whether the data lie in an S3 bucket."""
        return self.data.startswith("s3://")


def database_address(setting: str, text: str, data_setting: str, data: str) -> Path | LakeAddress:
    """The DuckDB file or the DuckLake that a setting names.

    Args:
        setting: What the person knows it by.
        text: Its value.
        data_setting: The same of where the data of a DuckLake lie.
        data: Its value; empty: where the catalogue says, or beside its file.

    Raises:
        ConfigurationError: one line that says what to write instead; it quotes no password.
    """
    if text.startswith(_LAKE):
        return _lake(setting, text, data_setting, data)
    if text.startswith(_MOTHERDUCK):
        raise ConfigurationError(
            f"{setting} begins with 'md:', and MotherDuck is untried: set it to a file of this machine (one of that "
            f"name: ./ before it), or to {_LAKE}..."
        )
    if data:
        raise ConfigurationError(f"{data_setting} is set, and {setting} names no DuckLake: unset it, or set {setting}")
    return local_paths.database_file(setting, text)


def _lake(setting: str, text: str, data_setting: str, data: str) -> LakeAddress:
    rest = text.removeprefix(_LAKE)
    if _PASSWORD.search(rest):
        raise ConfigurationError(f"{setting} must not hold a password: set PGPASSWORD, or write ~/.pgpass")
    found = _KIND.match(rest)
    kind, catalogue = (found[1], rest[found.end() :]) if found else ("duckdb", rest)
    if kind == "postgres":
        if not data:
            raise ConfigurationError(
                f"{data_setting} not set: with a catalogue in Postgres it says where the data lie, a folder or s3://"
            )
        return LakeAddress(kind, catalogue, _data(data_setting, data))
    if not catalogue:
        raise ConfigurationError(
            f"{setting} names no catalogue: write {_LAKE}sqlite:FILE, or {_LAKE}postgres:dbname=NAME"
        )
    file = local_paths.database_file(setting, catalogue)
    return LakeAddress(kind, str(file), _data(data_setting, data))


def _data(setting: str, text: str) -> str:
    if not text.startswith("s3://"):
        return f"{local_paths.folder(setting, text)}/" if text else ""
    parts = urlsplit(text)
    if "@" in parts.netloc or "?" in text or "#" in text:
        raise ConfigurationError(
            f"{setting} must not hold credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if not parts.netloc or not text.isprintable():
        raise ConfigurationError(f"{setting} names no bucket: write it as s3://BUCKET/FOLDER")
    return f"{text.rstrip('/')}/"
