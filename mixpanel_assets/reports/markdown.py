r"""Markdown for metadata and descriptions of checks, in which a text stays the text that it is.

Reasons quote what servers answered, and properties are called what their senders like: none of it may turn into a link,
a picture or another column. Escapes would not do: what looks like an address becomes a link even so. In code nothing
does.
"""

import re
from collections.abc import Iterable, Sequence

from mixpanel_assets.client.server_text import one_line

# Whoever wants the hundred-and-first row has a common cause to look for, not a row.
MOST_ROWS = 100
_LONGEST_TEXT = 1000
_FENCES = re.compile("`+")
_PIPE = re.compile(r"(\\*)\|")


def table(headers: Sequence[str], rows: Iterable[Sequence[str | float]]) -> str:
    """A table of the first `MOST_ROWS` rows, and a word about the others. Texts are shown as code."""
    rows = list(rows)
    lines = [_line(headers), _line(["---"] * len(headers))]
    lines += [_line([_cell(value) for value in row]) for row in rows[:MOST_ROWS]]
    if len(rows) > MOST_ROWS:
        lines.append(f"\nand {len(rows) - MOST_ROWS} more")
    return "\n".join(lines)


def code(text: str) -> str:
    """The text as code within a line."""
    line = one_line(text, _LONGEST_TEXT)
    if not line:
        return ""
    # It ends with as many backticks as it began with.
    fence = "`" * (1 + max(map(len, _FENCES.findall(line)), default=0))
    space = " " if line[0] == "`" or line[-1] == "`" else ""
    return f"{fence}{space}{line}{space}{fence}"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(value: str | float) -> str:
    return _PIPE.sub(_escaped, code(value)) if isinstance(value, str) else str(value)


def _escaped(pipe: re.Match[str]) -> str:
    """A pipe that ends no cell: an odd number of backslashes is before it, and one less is shown."""
    before = pipe[1]
    return before + ("\\" if len(before) % 2 == 0 else "\\\\") + "|"
