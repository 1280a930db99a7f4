"""One request from its submission to its files, followed by the events of its task."""

import asyncio
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calotype.cli import show
from calotype.cli.faults import CommandFault
from calotype.cli.order import Order, numbered

if TYPE_CHECKING:  # importing it takes longer than starting
    from calotype.cli.progress import Board
    from calotype.client import AsyncCalotype, AsyncTask


class OutOfTime(Exception):
    """The task is not final, and nobody waits for it any longer."""


@dataclasses.dataclass(frozen=True)
class Made:
    """A task that succeeded, and where its images are."""

    task: "AsyncTask"
    files: list[Path]

    def document(self) -> dict[str, Any]:
        """Both as JSON."""
        return {**self.task.raw, "files": [str(path) for path in self.files]}


async def follow(
    client: "AsyncCalotype", order: Order, *, board: "Board", row: str | None, seconds: float
) -> "AsyncTask":
    """Submit an order, and follow its task until it has succeeded.

    Args:
        client: of the server.
        order: sent again under its idempotency key when the connection breaks.
        board: shows how it goes.
        row: its name there; the task's id unless given.
        seconds: how long all this may take.

    Raises:
        OutOfTime: the time is over; the task goes on.
        CalotypeError: refused or failed (``TaskFailed``), or the server is gone.

    """
    try:
        async with asyncio.timeout(seconds):
            task = await client.generate(
                order.prompt,
                model=order.model,
                references=order.references,
                idempotency_key=order.idempotency_key,
                **order.fields,  # type: ignore[arg-type]  # as typed by a person; the server judges
            )
            if row is None:
                board.note(f"{task.id} is accepted; calotype tasks save {task.id} waits for it.")
            return await attend(task, board=board, row=row or task.id)
    except TimeoutError:
        raise OutOfTime from None


async def attend(task: "AsyncTask", *, board: "Board", row: str) -> "AsyncTask":
    """Follow a task until it has succeeded.

    Args:
        task: as it was when it was read.
        board: shows how it goes.
        row: its name there.

    Raises:
        CalotypeError: it failed (``TaskFailed``), or the server is gone.

    """
    from calotype.client import TaskFailed

    board.update(row, task.state, task.progress)
    async for event in task.events():
        board.update(row, event.state, event.progress)
        task = event.task or task
    if task.state == "fail":
        raise TaskFailed(task)
    return task


async def save(client: "AsyncCalotype", task: "AsyncTask", output: Path | None) -> list[Path]:
    """Write the images of a task that succeeded; returns their files in order.

    The first is written last: where its file is, all are.

    Args:
        client: of the server.
        task: whose.
        output: the first file; without an ending it gets that of the image. Without it the
            task's id, in this folder.

    Raises:
        CommandFault: one cannot be fetched or written.

    """
    from calotype.client import CalotypeError
    from calotype.client.files import suffix_of

    if not task.result:
        raise CommandFault(f"{task.id} succeeded without an image.")
    base = output or Path(task.id)
    files: list[Path] = []
    for place, image in reversed(list(enumerate(task.result, start=1))):
        named = base if base.suffix else base.with_name(base.name + suffix_of(image))
        path = numbered(named, place)
        try:
            await client.save(image.url, path)
        except (CalotypeError, OSError) as error:
            raise CommandFault(
                f"{path}: {str(error).rstrip('.')}. The server keeps the image: {image.url}"
            ) from error
        files.insert(0, path)
    return files


def tell(made: Made) -> None:
    """Say what was made: a line for each file."""
    from calotype.client.files import suffix_of

    for path, image in zip(made.files, made.task.result, strict=True):
        size = f"  {image.width}x{image.height}" if image.width and image.height else ""
        print(show.plain(f"{path}{size}"))
        expected = suffix_of(image)
        if path.suffix.lower().replace("jpeg", "jpg") != expected:
            show.note(f"{path} holds a {expected.removeprefix('.').upper()} image.")
    asked = made.task.request.get("n", 1)
    if isinstance(asked, int) and len(made.files) < asked:
        show.note(f"{len(made.files)} of {asked} images came.")
