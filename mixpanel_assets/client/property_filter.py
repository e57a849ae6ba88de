"""Properties that may not be kept, or not as they are: taken out or hashed on the exact text, before it is staged.

A hash is a pseudonym: SHA-256 of the value, as 64 hexadecimal digits. Without a salt it hides values from the eye
only: whoever has a list of addresses can hash them too and compare. With a secret salt (then HMAC-SHA-256) this takes
the salt. In both cases equal values stay equal, so rows can be counted and joined, and linked. It hides no distinct_id
unless that is listed, then also the one that an event had before its identities were merged; and nothing that another
property repeats.

What is gone is gone for all that follows: without `$last_seen` a profile has no last_seen, and events without
`$insert_id` that only differ in what was taken out are one event.
"""

import hashlib
import hmac
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import BinaryIO

import msgspec

from mixpanel_assets.client import json_text
from mixpanel_assets.client.split_records import Record, RecordJoiner
from mixpanel_assets.errors import ConfigurationError

# In `hashed`: the profile's own id, as one name with which it joins `distinct_id` of hashed events.
PROFILE_ID = "$distinct_id"
# The distinct_id that an event had before its identities were merged.
ID_BEFORE = "$distinct_id_before_identity"
# What tells events apart, and which of two copies is the newer: always kept.
EVENT_KEY = ("time", "distinct_id", "$insert_id", "mp_processing_time_ms")
_EVENT_KEY_AS_IT_IS = ("time", "mp_processing_time_ms")


@dataclass(frozen=True)
class PropertyFilter:
    """Which properties are kept, by exact names.

    Attributes:
        include: Only these; None: all.
        exclude: None of these.
        hashed: These as a hash of their value.
    """

    include: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()
    hashed: tuple[str, ...] = ()

    @property
    def keeps_all(self) -> bool:
        """Whether there is nothing to do."""
        return self.include is None and not self.exclude and not self.hashed

    def check(self) -> None:
        """Refuse lists that contradict each other.

        Raises:
            ConfigurationError: one line that names the setting.
        """
        for name in sorted({*self.exclude} & {*self.hashed, *(self.include or ())}):
            raise ConfigurationError(f"{name!r} is in exclude_properties and in another list: choose one")

    def check_for_events(self) -> None:
        """Refuse to lose what tells events apart.

        Raises:
            ConfigurationError: one line that names the property.
        """
        self.check()
        for name in EVENT_KEY:
            if name in self.exclude:
                raise ConfigurationError(f"exclude_properties: events cannot be told apart without {name!r}")
        for name in _EVENT_KEY_AS_IT_IS:
            if name in self.hashed:
                raise ConfigurationError(f"hash_properties: {name!r} is needed as it is")

    def check_for_filtered_events(self) -> None:
        """Refuse to lose what tells that an event has come before, where events do not replace their whole day.

        Raises:
            ConfigurationError: one line that names the property.
        """
        if ID_BEFORE in self.exclude:
            raise ConfigurationError(
                f"exclude_properties: with where, {ID_BEFORE!r} is needed: hash distinct_id instead"
            )
        if ID_BEFORE in self.hashed and "distinct_id" not in self.hashed:
            raise ConfigurationError(
                f"hash_properties: with where, {ID_BEFORE!r} is hashed with distinct_id or not at all"
            )

    def intersect(self, other: "PropertyFilter") -> "PropertyFilter":
        """What both keep."""
        if self.include is None or other.include is None:
            include = self.include if other.include is None else other.include
        else:
            include = tuple(name for name in self.include if name in other.include)
        exclude = dict.fromkeys((*self.exclude, *other.exclude))
        hashed = dict.fromkeys(name for name in (*self.hashed, *other.hashed) if name not in exclude)
        if include is not None:
            include = tuple(name for name in include if name not in exclude)
        return PropertyFilter(include, tuple(exclude), tuple(hashed))

    def filtered(self, properties: bytes | json_text.Text, salt: str) -> bytes:
        """The object with what may be kept; values stay the exact text. Of a repeated name the last.

        Raises:
            ValueError: not one whole JSON object.
        """
        kept = (
            msgspec.json.encode(name) + b":" + (hashed_value(value, salt) if name in self._hashed else bytes(value))
            for name, value in json_text.read_object(properties).items()
            if self.keeps(name)
        )
        return b"{" + b",".join(kept) + b"}"

    def for_events(self) -> "PropertyFilter":
        """The same, and what tells events apart; an id that was one before is hashed as the one that is."""
        include = None if self.include is None else (*EVENT_KEY, ID_BEFORE, *self.include)
        hashed = (*self.hashed, ID_BEFORE) if "distinct_id" in self.hashed else self.hashed
        return PropertyFilter(include, self.exclude, hashed)

    def keeps(self, name: str) -> bool:
        """Whether a property is kept, hashed or not."""
        return name not in self._excluded and (self.include is None or name in self._included)

    @cached_property
    def _included(self) -> frozenset[str]:
        return frozenset(self.include or ())

    @cached_property
    def _excluded(self) -> frozenset[str]:
        return frozenset(self.exclude)

    @cached_property
    def _hashed(self) -> frozenset[str]:
        return frozenset(self.hashed)


NO_FILTER = PropertyFilter()


def hashed_value(value: json_text.Text, salt: str) -> bytes:
    """The hash of a value, as JSON text. The number 4 and the text "4" have the same; null stays null."""
    if bytes(value) == b"null":
        return b"null"
    text = json_text.read_string(value)
    return b'"' + digest(bytes(value) if text is None else text.encode(), salt).encode() + b'"'


def digest(content: bytes, salt: str) -> str:
    """The pseudonym, 64 hexadecimal digits."""
    if not salt:
        return hashlib.sha256(content).hexdigest()
    return hmac.new(salt.encode(), content, hashlib.sha256).hexdigest()


class FilteredLines:
    """A file that events are written to as they come, and that only gets what may be kept.

    Whatever is no event loses all it holds but an error's text; what becomes of such lines is the
    events' lines.py's. Text that is not Unicode is mended here, uncounted, because a name could hide in it.
    """

    def __init__(self, file: BinaryIO, kept: PropertyFilter, salt: str) -> None:
        self._file = file
        self._kept = kept.for_events()
        self._salt = salt
        self._begun: list[bytes] = []
        self._joiner = RecordJoiner()

    def write(self, block: bytes) -> None:
        """Take the next bytes; lines are written when they are whole, and records when all their lines came."""
        whole, end, rest = block.rpartition(b"\n")
        if not end:
            self._begun.append(rest)
            return
        lines = b"".join([*self._begun, whole]).split(b"\n")
        self._begun = [rest]
        self._file.write(b"".join(self._taken(line) for line in lines))

    def finish(self) -> None:
        """Write what the last line left begun."""
        self._file.write(b"".join(self._record(record) for record in self._joiner.finish()))

    def _taken(self, line: bytes) -> bytes:
        if not line.strip():
            return line + b"\n"
        if self._joiner.is_idle:
            with suppress(ValueError):
                return self._kept_members(line)
        return b"".join(self._record(record) for record in self._joiner.take(0, line.strip()))

    def _record(self, record: Record) -> bytes:
        with suppress(ValueError):
            return self._kept_members(record.text)
        return _WITHHELD if record.whole else _BROKEN

    def _kept_members(self, line: bytes) -> bytes:
        text, _ = json_text.repaired(line)
        members = json_text.read_object(text)
        parts = [b'"' + name.encode() + b'":' + bytes(members[name]) for name in ("event", "error") if name in members]
        if "properties" in members:
            parts.append(b'"properties":' + self._kept.filtered(members["properties"], self._salt))
        return b"{" + b",".join(parts) + b"}\n"


# Set aside like any line that is JSON but no event; and refused like any line that is no whole JSON.
_WITHHELD = b'"withheld: no event, and may hold what must not be kept"\n'
_BROKEN = b'{"withheld\n'
