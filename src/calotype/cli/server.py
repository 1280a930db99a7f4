"""``calotype serve``, ``calotype worker`` and ``calotype migrate``."""

import asyncio
import gc
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
    gc.disable()  # until it is ready: what is made by then stays
    import msgspec

    from calotype.cli import logs

    if host is not None and not host.strip():
        raise typer.BadParameter("an empty host is no address; leave it out, or name one.")
    given: dict[str, Any] = {
        name: value for name, value in (("host", host), ("port", port)) if value is not None
    }
    settings = session.settings_of(context)
    said_by = settings.said_by | {name: f"--{name}" for name in given}
    settings = msgspec.structs.replace(settings, **given, said_by=said_by)
    logs.configure(settings.log_level, settings.log_format, access=settings.access_log)

    from calotype.cli.serve import serve as run_server
    from calotype.core import build_core

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
    gc.disable()  # until it is ready: what is made by then stays
    import msgspec

    from calotype.cli import logs

    settings = session.settings_of(context)
    if concurrency is not None:
        settings = msgspec.structs.replace(settings, worker_concurrency=concurrency)
    logs.configure(settings.log_level, settings.log_format, access=settings.access_log)

    from calotype.cli.serve import work
    from calotype.core import build_core

    slugs = None if channels is None else [slug.strip() for slug in channels.split(",")]
    work(build_core(settings), channels=slugs)


def migrate(
    context: typer.Context,
    *,
    source: Annotated[
        str | None,
        typer.Option(
            "--from", metavar="URL", help="SQLite database to copy, sqlite:///path/to/file.db."
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            "--to", metavar="URL", help="Empty PostgreSQL database to copy it into, postgresql://…"
        ),
    ] = None,
) -> None:
    """Make the database, or bring its schema up to date, and print its version.

    Safe to run again. An embedded database is also migrated by the server at its start, a shared
    one only by this command.

    With --from and --to, copy everything from one machine's database into an empty shared one,
    prove that both are equal, and show the sums. Stop every server on it first.
    """
    if source is not None or target is not None:
        from calotype.cli.transfer import transfer

        transfer(source, target)
        return

    from calotype.core import build_core

    settings = session.settings_of(context)
    core = build_core(settings)

    async def body() -> int:
        try:
            return await core.store.migrate()
        finally:
            await core.store.close()

    version = asyncio.run(body())
    where = "the shared database" if settings.shared_database else str(settings.database_path)
    print(f"{where}: schema version {version}")
