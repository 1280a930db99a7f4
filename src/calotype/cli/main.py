"""The ``calotype`` command, put together from one module per group of commands.

A server is to be ready soon, so its commands are here from the start and all others only where
the first word does not name one of these.
"""

import sys
from pathlib import Path
from typing import Annotated, Final

import typer

from calotype import __version__
from calotype.cli import faults, server

app = typer.Typer(
    name="calotype",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a traceback with its locals would show secrets
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:  # noqa: FBT001 -- typer hands the flag over like this
    if asked:
        print(f"calotype {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    *,
    config: Annotated[
        Path | None,
        typer.Option(
            envvar="CALOTYPE_CONFIG",
            help="The configuration; without it calotype.toml in this folder, where there is one.",
            metavar="FILE",
        ),
    ] = None,
    version: Annotated[  # noqa: ARG001 -- its callback prints and exits
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Self-hosted image generation: one endpoint, many models, every request a durable task.

    Begin with: calotype keys create --name me --credits 10, then calotype serve.
    """
    context.obj = config


app.command()(server.serve)
app.command()(server.worker)
app.command()(server.migrate)
_SERVERS: Final = {"serve", "worker", "migrate"}


def add_the_rest() -> typer.Typer:
    """Add the commands that are no servers; returns the whole command."""
    from calotype.cli import (
        accounts,
        admin,
        channels,
        doctor,
        files,
        generate,
        keys,
        local,
        mcp,
        models,
        tasks,
        webhooks,
    )
    from calotype.cli import credits as credit_commands

    app.add_typer(keys.app, name="keys")
    app.add_typer(credit_commands.app, name="credits")
    app.add_typer(accounts.app, name="accounts")
    app.command()(models.models)
    app.command()(channels.channels)
    app.command()(generate.generate)
    app.add_typer(tasks.app, name="tasks")
    app.add_typer(files.app, name="files")
    app.add_typer(webhooks.app, name="webhooks")
    app.add_typer(local.app, name="local")
    app.command()(mcp.mcp)
    app.add_typer(admin.app, name="admin")
    app.command()(doctor.doctor)
    return app


def main() -> None:
    """Run the command that the arguments name.

    What a person can do something about is told in one line on stderr; the rest is a fault of
    ours and shows its traceback.
    """
    if not _SERVERS.intersection(sys.argv[1:2]):
        add_the_rest()
    try:
        app()
    except Exception as error:
        fault = faults.explain(error)
        if fault is None:
            raise
        faults.tell(fault.message)
        sys.exit(fault.exit_code)
