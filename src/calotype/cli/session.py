"""What a command works with: the settings, and the core made of them."""

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

from calotype.cli.faults import CommandFault

if TYPE_CHECKING:  # importing them takes longer than most commands
    from calotype.assets.address import Bucket
    from calotype.core import Core
    from calotype.settings import Settings

T = TypeVar("T")


def settings_of(context: typer.Context) -> "Settings":
    """The settings from the file that ``--config`` names and from the environment."""
    from calotype.settings import Settings

    return Settings.load(file=context.obj)


def with_core(
    context: typer.Context, body: Callable[["Core"], Awaitable[T]], *, make: bool = True
) -> T:
    """Run ``body`` on an open core.

    Args:
        context: of the command.
        body: what the command does.
        make: make an embedded database or bring it up to date; otherwise it has to be there
            already. A shared one always has to.

    Raises:
        CommandFault: there is no database that could be read.
        StoreError: the database cannot be used as it is.

    """
    from calotype.core import build_core

    settings = settings_of(context)
    _log(settings)
    if not make and not settings.shared_database:
        _require_schema(settings.database_path)
    core = build_core(settings)

    async def run() -> T:
        try:
            if make or settings.shared_database:
                await core.store.prepare()
            return await body(core)
        finally:
            await core.store.close()

    return asyncio.run(run())


def run_until_stopped(work: Coroutine[Any, Any, T]) -> T:
    """Run to its end, or until it is told to stop: SIGTERM and a hang-up cancel it as Ctrl-C does.

    Raises:
        typer.Exit: it was told to stop; with 128 and the signal's number, as shells have it.

    """

    async def run() -> T:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        stopped_by: list[int] = []

        def stop(number: int) -> None:
            stopped_by.append(number)
            if task is not None:
                task.cancel()

        if sys.platform != "win32":
            for number in (signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup has it
                    loop.add_signal_handler(number, stop, number)
        try:
            return await work
        except asyncio.CancelledError:
            if stopped_by:
                raise typer.Exit(128 + stopped_by[0]) from None
            raise

    return asyncio.run(run())


@contextlib.asynccontextmanager
async def until_told_to_stop() -> AsyncIterator[asyncio.Event]:
    """An event that Ctrl-C and SIGTERM set, for as long as the block runs."""
    stopped, loop = asyncio.Event(), asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, stopped.set)
    try:
        yield stopped
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


def assets_place(settings: "Settings") -> "Path | Bucket":
    """Where the images lie: a folder, or a place in a cloud store.

    Raises:
        SettingsError: there is no such store.

    """
    from calotype.core import assets_at

    return assets_at(settings)


def schema_versions(path: Path) -> tuple[int, int]:
    """The version of the schema in an embedded database that exists, and the one that we know.

    Raises:
        sqlite3.Error: the file is no database.

    """
    from calotype.store.sqlite import connection

    folder = Path(connection.__file__).parent / "migrations"
    known = max(int(file.name[:4]) for file in folder.glob("[0-9][0-9][0-9][0-9]_*.sql"))
    reader = connection.connect(path, read_only=True)
    try:
        (found,) = reader.execute("PRAGMA user_version").fetchone()
    finally:
        reader.close()
    return found, known


def _require_schema(path: Path) -> None:
    if not path.exists():
        raise CommandFault(
            f"{path}: there is no database yet; run calotype serve or calotype migrate."
        )
    found, known = schema_versions(path)
    if found < known:
        raise CommandFault(
            f"{path}: the schema has version {found}, this Calotype works with {known}; "
            "run calotype migrate."
        )
    if found > known:
        raise CommandFault(
            f"{path}: the schema has version {found}, this Calotype knows {known}; "
            "use the newer Calotype that wrote it."
        )


def _log(settings: "Settings") -> None:
    """A command tells of what goes wrong itself; the log is for those who debug it."""
    if settings.log_level == "debug":
        from calotype.cli import logs

        logs.configure(settings.log_level, settings.log_format)
    else:
        logging.getLogger("calotype").addHandler(logging.NullHandler())
