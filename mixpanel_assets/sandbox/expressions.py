"""The part of Mixpanel's `where` language that the sandbox understands.

Belongs here: `properties["name"] <op> literal` with == != >= <= > < and in, behaviors["name"], defined(), boolean(),
and, or, not, parentheses, true, false, null; and taking JSON text apart without normalising it. Everything else is a
BadExpression, which becomes a 400.
"""

import json
import operator
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

_NONE: Mapping[str, int] = MappingProxyType({})


class Predicate(Protocol):
    """Whether an expression holds for a profile or an event."""

    def __call__(self, properties: Mapping[str, Any], behaviors: Mapping[str, int] = _NONE) -> bool: ...


class _Subject(NamedTuple):
    """What an expression is asked about: properties, and how often a person did what each behavior names."""

    properties: Mapping[str, Any]
    behaviors: Mapping[str, int]


_Value = Callable[[_Subject], Any]
_Test = Callable[[_Subject], bool]
_TOKEN = re.compile(
    r"""\s*(?:(?P<name>(?P<of>properties|user|event|behaviors)\s*\[\s*(?P<key>"(?:[^"\\]|\\.)*"|'[^'\\]*')\s*\])"""
    r"""|(?P<text>"(?:[^"\\]|\\.)*"|'[^'\\]*')|(?P<number>-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)"""
    r"""|(?P<op>==|!=|>=|<=|>|<)|(?P<word>and|or|not|in|true|false|null)\b|(?P<call>defined|boolean)\b|(?P<paren>[()]))"""
)
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq, "!=": operator.ne, ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt,
    "in": lambda part, whole: part in whole,
}  # fmt: skip
_WORDS = {"true": True, "false": False, "null": None}
_CALLS: dict[str, Callable[[Any], bool]] = {"defined": lambda value: value is not None, "boolean": bool}


class BadExpression(ValueError):
    """The text is not an expression that the sandbox understands."""


def predicate(text: str, behaviors: Collection[str] = ()) -> Predicate:
    """What `text` says about a profile or an event, where `behaviors` are the names it may use of those; BadExpression
    when it says nothing."""
    parser = _Parser(list(_tokens(text)), behaviors)
    found = parser.either()
    if parser.tokens:
        raise BadExpression(f"unexpected {parser.tokens[0][1]!r} in selector")
    return lambda properties, behaviors=_NONE: found(_Subject(properties, behaviors))


def members(text: str) -> Iterator[tuple[str, str, str]]:
    """(key, key's JSON text, value's JSON text) of each member of a JSON object, nothing re-written."""
    decoder, at = json.JSONDecoder(), _skip(text, 1)
    while text[at] != "}":
        key, colon = decoder.raw_decode(text, at)
        start = _skip(text, _skip(text, colon) + 1)
        _, end = decoder.raw_decode(text, start)
        yield key, text[at:colon], text[start:end]
        at = _skip(text, end)
        at = _skip(text, at + 1) if text[at] == "," else at


def only_members(text: str, wanted: frozenset[str]) -> str:
    """The JSON object `text` with only the wanted keys, in its own order."""
    return "{" + ",".join(f"{key}:{value}" for name, key, value in members(text) if name in wanted) + "}"


def _skip(text: str, at: int) -> int:
    while text[at] in " \t\r\n":
        at += 1
    return at


def _tokens(text: str) -> Iterator[tuple[str, Any]]:
    at, text = 0, text.rstrip()
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise BadExpression(f"cannot parse selector at {text[at : at + 20]!r}")
        at, kind = match.end(), match.lastgroup or ""
        if match["name"]:
            yield "behavior" if match["of"] == "behaviors" else "name", _literal(match["key"])
        elif kind == "text":
            yield kind, _literal(match["text"])
        elif kind == "number":
            yield kind, json.loads(match["number"])
        else:
            yield kind, match[kind]


def _literal(quoted: str) -> str:
    return str(json.loads(quoted)) if quoted.startswith('"') else quoted[1:-1]


class _Parser:
    def __init__(self, tokens: list[tuple[str, Any]], behaviors: Collection[str]) -> None:
        self.tokens = tokens
        self._behaviors = behaviors

    def either(self) -> _Test:
        parts = [self._all()]
        while self._take("word", "or"):
            parts.append(self._all())
        return lambda row: any(part(row) for part in parts)

    def _all(self) -> _Test:
        parts = [self._one()]
        while self._take("word", "and"):
            parts.append(self._one())
        return lambda row: all(part(row) for part in parts)

    def _one(self) -> _Test:
        if self._take("word", "not"):
            inner = self._one()
            return lambda row: not inner(row)
        if self._take("paren", "("):
            inner = self.either()
            if not self._take("paren", ")"):
                raise BadExpression("unbalanced parenthesis in selector")
            return inner
        return self._comparison()

    def _comparison(self) -> _Test:
        stands_alone = bool(self.tokens) and self.tokens[0][0] == "call"
        left = self._value()
        if stands_alone and (not self.tokens or self.tokens[0][0] != "op"):
            return left
        kind, sign = self._next()
        if kind != "op" and (kind, sign) != ("word", "in"):
            raise BadExpression(f"expected a comparison, found {sign!r} in selector")
        right, compare = self._value(), _OPERATORS[sign]

        def holds(row: _Subject) -> bool:
            try:
                return compare(left(row), right(row))
            except TypeError:  # "a" < 1: false, as in Mixpanel, where types do not mix
                return False

        return holds

    def _value(self) -> _Value:
        kind, value = self._next()
        if kind == "name":
            return lambda row: row.properties.get(value)
        if kind == "behavior" and value in self._behaviors:
            return lambda row: row.behaviors.get(value, 0)
        if kind == "behavior":
            raise BadExpression(f"unknown behavior {value!r} in selector")
        if kind == "call":
            return self._call(_CALLS[value])
        if kind == "word" and value in _WORDS:
            constant = _WORDS[value]
            return lambda _: constant
        if kind in ("text", "number"):
            return lambda _: value
        raise BadExpression(f"unexpected {value!r} in selector")

    def _call(self, function: Callable[[Any], bool]) -> _Value:
        if not self._take("paren", "("):
            raise BadExpression("a function without parentheses in selector")
        inner = self._value()
        if not self._take("paren", ")"):
            raise BadExpression("unbalanced parenthesis in selector")
        return lambda row: function(inner(row))

    def _next(self) -> tuple[str, Any]:
        if not self.tokens:
            raise BadExpression("unexpected end of selector")
        return self.tokens.pop(0)

    def _take(self, kind: str, value: str) -> bool:
        if self.tokens and self.tokens[0] == (kind, value):
            self.tokens.pop(0)
            return True
        return False
