"""`mp --version`: what to name in a question."""

import platform
from importlib.metadata import version
from typing import Annotated

import typer

from mixpanel_assets.cli.output import show

_NAMED = ("mixpanel-assets", "dagster", "duckdb")


def _show(wanted: bool) -> None:  # noqa: FBT001 - as Typer calls it
    if wanted:
        packages = ", ".join(f"{name} {version(name)}" for name in _NAMED)
        show(f"{packages}, Python {platform.python_version()}")
        raise typer.Exit


def options(
    version: Annotated[  # noqa: FBT002 - to Typer, a flag is a boolean parameter with a default
        bool, typer.Option("--version", callback=_show, is_eager=True, help="Show the versions, and end.")
    ] = False,
) -> None:
    """The options of `mp` itself."""
