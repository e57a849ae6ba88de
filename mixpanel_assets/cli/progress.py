"""What a person sees on stderr while a sync runs: a bar on a terminal, plain lines elsewhere.

Belongs here: showing. Does not belong here: knowing what happens (runs/), results on stdout (output.py).
"""

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from mixpanel_assets.cli.output import printable

_STYLES = {logging.WARNING: "yellow", logging.ERROR: "red"}
# A line per page is too much for a log of sixty thousand of them, and too little news for a person who waits.
_LINE_EVERY_SECONDS = 1.0


class View:
    """Warnings and nothing else: `--no-progress`, and the base of the others."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def expect(self, units: int, *, anew: bool) -> None:
        """So many pages or chunks will come in all; `anew`: what came so far does not count."""

    def finished(self, update: Any) -> None:
        """One page or chunk came or failed."""

    def say(self, level: int, text: str) -> None:
        """A line above the bar."""
        self.console.print(Text(printable(text), style=_STYLES.get(level, "")), soft_wrap=True)

    def close(self) -> None:
        """Take the bar away."""


class Lines(View):
    """Progress for logs: a line per second at the most, and one for the last page."""

    def __init__(self, console: Console, what: str, unit: str) -> None:
        super().__init__(console)
        self._what, self._unit = what, unit
        self._expected = self._finished = self._rows = 0
        self._said_at = 0.0

    def expect(self, units: int, *, anew: bool) -> None:
        self._expected = units
        if anew:
            self._finished = self._rows = 0

    def finished(self, update: Any) -> None:
        self._finished += 1
        self._rows += update.rows
        now = time.monotonic()
        if now - self._said_at < _LINE_EVERY_SECONDS and self._finished < self._expected:
            return
        self._said_at = now
        of = max(self._expected, self._finished)
        self.say(logging.INFO, f"{self._what}: {self._finished} of {of} {self._unit}, {self._rows:,} rows")


class Bar(View):
    """Progress for people: what is done, rows, rate and time left."""

    def __init__(self, console: Console, what: str, unit: str) -> None:
        super().__init__(console)
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn(unit),
            TextColumn("{task.fields[rows]:,} rows {task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._progress.add_task(what, total=None, rows=0, rate="")
        self._rows = 0
        self._started_at = time.monotonic()
        self._progress.start()

    def expect(self, units: int, *, anew: bool) -> None:
        if anew:
            self._rows = 0
            self._started_at = time.monotonic()
            self._progress.reset(self._task, rows=0, rate="")
        self._progress.update(self._task, total=units)

    def finished(self, update: Any) -> None:
        self._rows += update.rows
        seconds = time.monotonic() - self._started_at
        rate = f"{self._rows / seconds:,.0f}/s" if seconds > 1 else ""
        self._progress.update(self._task, advance=1, rows=self._rows, rate=rate)

    def close(self) -> None:
        self._progress.stop()


@contextmanager
def view(what: str, unit: str, *, wanted: bool = True, bar: bool = True) -> Iterator[View]:
    """The view that suits stderr. `wanted=False`: warnings only. `bar=False`: lines, even on a terminal."""
    console = Console(stderr=True, highlight=False)
    shown: View
    if not wanted:
        shown = View(console)
    elif bar and console.is_terminal and not console.is_dumb_terminal:
        shown = Bar(console, what, unit)
    else:
        shown = Lines(console, what, unit)
    try:
        yield shown
    finally:
        shown.close()
