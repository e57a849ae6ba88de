"""How `mp` prints: results on stdout, as JSON or for people; warnings and errors as single lines on stderr."""

import io
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum
from typing import Annotated, Any

import typer

from mixpanel_assets.cli.streams import discard
from mixpanel_assets.client.server_text import visible
from mixpanel_assets.errors import MixpanelAssetsError

_WIDEST = 10_000


class Format(str, Enum):
    """What stdout shows."""

    json = "json"
    table = "table"


FormatOption = Annotated[Format, typer.Option("--format", help="json for programs, table for people.")]


def print_result(result: Mapping[str, Any], output: Format) -> None:
    """The one thing on stdout of a command that has a result."""
    show(json.dumps(result, ensure_ascii=False, indent=2) if output is Format.json else _table(result))


def print_rows(first: str, rows: Mapping[str, Mapping[str, Any]]) -> None:
    """A table for people: a row for each name, under `first`, and a column for each of its values that is anywhere."""
    names = dict.fromkeys(name for row in rows.values() for name in row)
    columns = [name for name in names if any(row.get(name) is not None for row in rows.values())]
    cells = [[name, *(_text(row.get(column)) for column in columns)] for name, row in rows.items()]
    show(_drawn([first, *columns], cells))


def show(text: str) -> None:
    """Print on stdout. That nobody reads it, or not all, is no failure: `mp status | head -1`.

    Raises:
        MixpanelAssetsError: it cannot be written.
    """
    try:
        print(printable(text), flush=True)
    except BrokenPipeError:
        discard(sys.stdout)
    except OSError as error:
        discard(sys.stdout)
        raise MixpanelAssetsError(f"cannot write to stdout ({error.strerror})") from None


def _table(result: Mapping[str, Any]) -> str:
    return _drawn([], flat(result).items())


def _drawn(header: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*header, show_header=bool(header), box=None, pad_edge=False)
    for row in rows:
        table.add_row(*(Text(visible(cell)) for cell in row))  # As Text: it would read markup in a str.
    # As wide as its widest row: a path that is cut leads nowhere, and terminals wrap lines.
    console = Console(file=io.StringIO(), highlight=False, width=_WIDEST)
    with console.capture() as printed:
        console.print(table, end="")
    return printed.get()


def flat(result: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Names and values as text, nested names joined by spaces."""
    rows: dict[str, str] = {}
    for name, value in result.items():
        words = prefix + name.replace("_", " ")
        if isinstance(value, Mapping):
            rows |= flat(value, f"{words}: ")
        else:
            rows[words] = _text(value)
    return rows


def printable(text: str) -> str:
    """The text with nothing that steers the terminal but its line ends; JSON stays the same JSON."""
    return "\n".join(map(visible, text.split("\n")))


def say(line: str) -> None:
    """A line for people."""
    print(printable(line), file=sys.stderr, flush=True)


def warn(line: str) -> None:
    """Something did not go as wished."""
    say(f"Warning: {line}")


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, list):
        return ", ".join(" to ".join(item) if isinstance(item, list) else str(item) for item in value) or "none"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
