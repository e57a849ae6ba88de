"""Which place for staged files a setting names: a folder, or a bucket. Refused before the first request if neither."""

import functools
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mixpanel_assets import local_paths, settings
from mixpanel_assets.errors import ConfigurationError
from mixpanel_assets.storage.object_staging import ObjectStaging, bucket
from mixpanel_assets.storage.staging import LocalStaging, Staging

_BUCKETS = ("s3://", "gs://", "az://")
_FOLDER = "file://"


def staging_at(setting: str, text: str, within: str = "") -> Staging:
    """The place that a setting names.

    Args:
        setting: What the person knows it by.
        text: Its value: a path, or a URL.
        within: The folder of a project in it.

    Raises:
        ConfigurationError: one line that says what to write instead; it quotes no credentials.
    """
    if text.startswith(_FOLDER):
        folder = local_paths.folder(setting, unquote(urlsplit(text).path) or text)
    elif text.startswith(_BUCKETS):
        return _in_bucket(setting, "/".join(part for part in (text.rstrip("/"), within) if part), settings.home())
    else:
        folder = local_paths.folder(setting, text)
    return LocalStaging(folder / within if within else folder)


@functools.lru_cache(maxsize=64)
def _in_bucket(setting: str, url: str, home: Path) -> ObjectStaging:
    """Made once, as its connections stay open."""
    parts = urlsplit(url)
    if "@" in parts.netloc or "?" in url or "#" in url:
        raise ConfigurationError(f"{setting} must not hold credentials: they come from the environment")
    if not parts.netloc or not url.isprintable():
        raise ConfigurationError(f"{setting} names no bucket: write it as s3://BUCKET/FOLDER")
    return ObjectStaging(bucket(setting, url), url, LocalStaging(home / "working"))
