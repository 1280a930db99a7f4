"""The command line."""

from calotype.cli.main import main

__all__ = ["main"]
