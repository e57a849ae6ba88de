"""Arguments as the types that are wanted: what can only mean one thing is taken for it, the rest is refused in a line.

Scripts read numbers from files and the environment, where they are text, and from tables, where they are NumPy's.
"""

import datetime
import json
import operator
import re
from collections.abc import Iterable, Mapping

from mixpanel_assets.errors import ConfigurationError

_WHOLE = re.compile(r"[+-]?[0-9]{1,30}")
_TRUTH = {"true": True, "1": True, "false": False, "0": False}


def whole_number(name: str, value: object) -> int:
    """A whole number: 7, "7" or 7.0, and neither 7.5 nor True.

    Raises:
        ConfigurationError: it is none.
    """
    if isinstance(value, str) and _WHOLE.fullmatch(value.strip()):
        return int(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if not isinstance(value, (bool, float)):
        try:
            return operator.index(value)  # type: ignore[arg-type]  # that is what is asked
        except TypeError:
            pass
    raise _refusal(name, "a whole number", value)


def whole_numbers(name: str, value: object) -> list[int]:
    """A list of whole numbers.

    Raises:
        ConfigurationError: it is none.
    """
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes, bytearray, Mapping)):
        return [whole_number(name, each) for each in value]
    raise _refusal(name, "a list of whole numbers", value)


def number(name: str, value: object) -> float:
    """A number: 0.5, 1 or "0.5", and not True; whether it is in range is for others to say.

    Raises:
        ConfigurationError: it is none.
    """
    if not isinstance(value, (bool, bytes, bytearray)):
        try:
            return float(value)  # type: ignore[arg-type]  # that is what is asked
        except (TypeError, ValueError, OverflowError):
            pass
    raise _refusal(name, "a number", value)


def truth(name: str, value: object) -> bool:
    """True or False, also as text of any case, or as 1 and 0.

    Raises:
        ConfigurationError: it is neither.
    """
    said = _TRUTH.get(str(value).strip().lower())
    if said is None:
        raise _refusal(name, "True or False", value)
    return said


def text(name: str, value: object) -> str:
    """Text.

    Raises:
        ConfigurationError: it is none.
    """
    if not isinstance(value, str):
        raise _refusal(name, "text", value)
    return value


def json_text(name: str, value: object) -> str:
    """JSON, given as its text or as lists and dictionaries.

    Raises:
        ConfigurationError: it is none.
    """
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError):
        raise _refusal(name, "JSON", value) from None


def digits(name: str, value: object) -> str:
    """A whole number as its digits; no float, which may have lost some.

    Raises:
        ConfigurationError: it is none.
    """
    if isinstance(value, float):
        raise _refusal(name, "a whole number, written as text", value)
    return str(whole_number(name, value))


def digits_by_name(name: str, value: object) -> dict[str, str]:
    """Names, each with a whole number as its digits.

    Raises:
        ConfigurationError: it is no such mapping.
    """
    if isinstance(value, Mapping) and all(isinstance(each, str) for each in value):
        return {each: digits(f"{name}: {each}", number) for each, number in value.items()}
    raise _refusal(name, "names with numbers, such as {'company': '-14'}", value)


def names(name: str, value: object) -> list[str]:
    """A list of names; one text could be one name, or several with commas between.

    Raises:
        ConfigurationError: it is none.
    """
    if isinstance(value, str):
        raise ConfigurationError(f"{name} must be a list of names, not one text")
    if isinstance(value, Iterable) and not isinstance(value, (bytes, bytearray, Mapping)):
        found = list(value)
        if all(isinstance(each, str) for each in found):
            return found
    raise _refusal(name, "a list of names", value)


def day(name: str, value: object) -> str:
    """A day as an ISO date, from such a text, a date, or a datetime at midnight without a time zone.

    Raises:
        ConfigurationError: it is none.
    """
    if isinstance(value, datetime.datetime):
        if value.tzinfo is not None or value.time() != datetime.time():
            raise ConfigurationError(f"{name} {str(value)!r} is no whole day: write it as 2024-01-31")
        value = value.date()
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, str):
        return value.strip()
    raise _refusal(name, "a date, such as 2024-01-31", value)


def _refusal(name: str, wanted: str, value: object) -> ConfigurationError:
    said = " ".join(repr(value).split())
    return ConfigurationError(f"{name} must be {wanted}, not {said[:80]}{'...' if len(said) > 80 else ''}")
