"""Markdown for metadata: tables of plain text, whatever the text holds.

Reasons quote what servers answered, so nothing in a cell may turn into a link, a picture or another column.
"""

import re
from collections.abc import Iterable, Sequence

from mixpanel_assets.mixpanel.server_text import visible

# Whoever wants the hundred-and-first row has a common cause to look for, not a row.
MOST_ROWS = 100
_SPECIAL = re.compile(r"([\\`*_{}\[\]()<>#!|~$])")


def table(headers: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table of the first `MOST_ROWS` rows, and a word about the others."""
    rows = list(rows)
    lines = [_line(headers), _line(["---"] * len(headers))]
    lines += [_line([_plain(cell) for cell in row]) for row in rows[:MOST_ROWS]]
    if len(rows) > MOST_ROWS:
        lines.append(f"\nand {len(rows) - MOST_ROWS} more")
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plain(cell: object) -> str:
    # Addresses become links by themselves; a zero-width space after the scheme keeps them text.
    text = visible(" ".join(str(cell).split())).replace("://", ":\u200b//")
    return _SPECIAL.sub(r"\\\1", text)
