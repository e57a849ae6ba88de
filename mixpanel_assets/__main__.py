"""`mp` and `python -m mixpanel_assets`: the way in, nothing else."""

from mixpanel_assets.cli.main import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
