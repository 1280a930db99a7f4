"""The ``calotype`` command."""

import logging
from pathlib import Path
from typing import Annotated

import typer

from calotype.app import Core, build_core
from calotype.cli.serve import serve as run_server
from calotype.settings import Settings

app = typer.Typer(no_args_is_help=True)


@app.callback()
def _root(context: typer.Context, config: Annotated[Path | None, typer.Option()] = None) -> None:
    context.obj = config


def _core(context: typer.Context) -> Core:
    settings = Settings.load(file=context.obj)
    logging.basicConfig(level=settings.log_level.upper())
    return build_core(settings)


@app.command()
def serve(context: typer.Context, worker: Annotated[bool, typer.Option()] = True) -> None:
    """Serve."""
    run_server(_core(context), with_worker=worker)


def main() -> None:
    """Run."""
    app()
