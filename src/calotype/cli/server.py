"""``calotype serve`` and ``calotype migrate``."""

from typing import Annotated, Any

import typer

from calotype.cli import session


def serve(
    context: typer.Context,
    *,
    worker: Annotated[
        bool,
        typer.Option(
            "--worker/--no-worker",
            help="Develop tasks in this process, or only accept and show them.",
        ),
    ] = True,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on, instead of the setting.")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65_535, help="Port to listen on, instead of the setting; 0 takes a free one."
        ),
    ] = None,
) -> None:
    """Start the server: the API, and the worker that develops what it accepts.

    Runs until Ctrl-C or SIGTERM. Says on stdout where it listens, and logs to stderr.
    """
    import msgspec

    from calotype.cli import logs

    if host is not None and not host.strip():
        raise typer.BadParameter("an empty host is no address; leave it out, or name one.")
    given: dict[str, Any] = {
        name: value for name, value in (("host", host), ("port", port)) if value is not None
    }
    settings = msgspec.structs.replace(session.settings_of(context), **given)
    logs.configure(settings.log_level)

    from calotype.app import build_core
    from calotype.cli.serve import serve as run_server

    run_server(build_core(settings), with_worker=worker)


def worker(
    context: typer.Context,
    *,
    channels: Annotated[
        str | None,
        typer.Option(
            help="Slugs of the channels to work for, separated by commas; all if left out."
        ),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(min=2, help="Most tasks at a time in this process, instead of the setting."),
    ] = None,
) -> None:
    """Start a worker without an API, on a shared PostgreSQL database.

    Runs until Ctrl-C or SIGTERM, then parks what can be parked and finishes the rest.
    """
    import msgspec

    from calotype.cli import logs

    settings = session.settings_of(context)
    if concurrency is not None:
        settings = msgspec.structs.replace(settings, worker_concurrency=concurrency)
    logs.configure(settings.log_level)

    from calotype.app import build_core
    from calotype.cli.serve import work

    slugs = None if channels is None else [slug.strip() for slug in channels.split(",")]
    work(build_core(settings), channels=slugs)


def migrate(context: typer.Context) -> None:
    """Make the database, or bring its schema up to date, and print its version.

    Safe to run again, and while a server runs; the server does it at its start by itself.
    """
    from calotype.app import Core

    async def body(core: Core) -> int:
        return await core.store.migrate()

    version = session.with_core(context, body, migrate=True)
    print(f"{session.settings_of(context).database_path}: schema version {version}")
