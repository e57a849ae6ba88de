"""An entry of Lexicon as rows: one for the event, or the profile, and one for each of its properties."""

import json
from collections.abc import Iterable

from mixpanel_assets.client import json_text
from mixpanel_assets.client.server_text import ServerText
from mixpanel_assets.streams.snapshot.page import RejectedRow, Row


def rows_of(number: int, item: json_text.Text, texts: ServerText) -> Iterable[Row | RejectedRow]:
    """The rows of the entry at a place of the list; what cannot be taken apart is rejected as a whole.

    A row's key is a JSON list: the kind of entity, its name, and the property's name if it is one's.
    """
    try:
        return _rows(item)
    except ValueError as error:
        return [RejectedRow(number, str(error), texts.kept(bytes(item).decode()))]


def _rows(item: json_text.Text) -> list[Row]:
    entry = _members(item, "not an object")
    entity = [_text(entry, "entityType"), _text(entry, "name")]
    schema = entry.get("schemaJson")
    if schema is None:
        raise ValueError("no schemaJson")
    properties = _members(schema, "schemaJson is no object").get("properties")
    described = {} if _is_null(properties) else _members(properties, "properties are no object")
    return [
        Row(_key(entity), bytes(schema).decode()),
        *(Row(_key([*entity, name]), bytes(text).decode()) for name, text in described.items()),
    ]


def _members(text: json_text.Text | None, otherwise: str) -> dict[str, json_text.Text]:
    try:
        return json_text.read_object(text or b"")
    except ValueError:
        raise ValueError(otherwise) from None


def _text(entry: dict[str, json_text.Text], name: str) -> str:
    member = entry.get(name)
    text = None if member is None else json_text.read_string(member)
    if text is None:
        raise ValueError(f"no {name}")
    return text


def _is_null(text: json_text.Text | None) -> bool:
    return text is None or bytes(text) == b"null"


def _key(names: list[str]) -> str:
    return json.dumps(names, ensure_ascii=False)
