"""`mp status` and `mp plan`."""

import typer

plan_app = typer.Typer(help="What a sync would cost, before it runs.", no_args_is_help=True)


def status() -> None:
    """The last syncs, what failed in them, and the quota left."""
