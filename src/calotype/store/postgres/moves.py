"""Moving many tasks in one transaction, each of which holds or is fenced on its own."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final

import msgspec

from calotype.domain.errors import Unavailable
from calotype.domain.task import Asset, Task
from calotype.store.port import Begin, Fenced
from calotype.store.postgres.batcher import Batcher
from calotype.store.postgres.connection import Connection
from calotype.store.postgres.database import Database
from calotype.store.rows import Row


class Step(msgspec.Struct, frozen=True):
    """One task's move."""

    values: tuple[Any, ...]
    """The task's id first."""
    images: Sequence[Asset] = ()
    """Those that are to be written down."""
    earlier: Sequence[int] = ()
    """The ids of those of its result that had been before."""
    choose: Callable[[Task], Begin | None] | None = None
    """Which attempt is begun with a task that nobody had before."""


Columns = Callable[[Sequence[Step]], list[list[Any]]]


def plain(steps: Sequence[Step]) -> list[list[Any]]:
    """A column of each value."""
    return [list(column) for column in zip(*(step.values for step in steps), strict=True)]


def stored_as(images: Sequence[Asset]) -> list[list[Any]]:
    """Where and as what images are stored: six columns."""
    return [
        [image.key for image in images],
        [image.content_type for image in images],
        [image.bytes for image in images],
        [image.width for image in images],
        [image.height for image in images],
        [image.created_at for image in images],
    ]


def with_images(steps: Sequence[Step]) -> list[list[Any]]:
    """The same, and the columns of all their images."""
    images = [(step.values[0], image) for step in steps for image in step.images]
    return [
        *plain(steps),
        [task_id for task_id, _ in images],
        [image.id for _, image in images],
        *stored_as([image for _, image in images]),
    ]


def with_result(steps: Sequence[Step]) -> list[list[Any]]:
    """The same, and the images that had been written down before."""
    return [*with_images(steps), [image_id for step in steps for image_id in step.earlier]]


class Move:
    """A statement that moves tasks; each row that it gives begins with the id of one it moved."""

    def __init__(self, statement: str, columns: Columns = plain) -> None:
        self.statement: Final = statement
        self.columns: Final = columns

    async def make(self, connection: Connection, steps: Sequence[Step]) -> list[Row]:
        """Move tasks; those that have no row are fenced."""
        found: list[Row] = await connection.fetch(self.statement, *self.columns(steps))
        return found


class Moves:
    """Makes moves: those of one kind that are asked for meanwhile go together.

    Args:
        database: where they are written.
        then: is called after each batch.

    """

    def __init__(self, database: Database, *, then: Callable[[], None]) -> None:
        self._db = database
        self._then = then
        self._kinds: dict[Move, Batcher[Step, Row]] = {}

    async def make(self, move: Move, step: Step) -> Row:
        """Move a task; returns the row of it.

        Raises:
            Fenced: it is not as its mover thinks.

        """
        if move not in self._kinds:
            self._kinds[move] = Batcher(partial(self._make_all, move))
        return await self._kinds[move].add(step)

    async def close(self) -> None:
        """Wait for what is under way."""
        for batcher in self._kinds.values():
            await batcher.close()

    async def _make_all(self, move: Move, steps: Sequence[Step]) -> list[Row | Exception]:
        made: dict[int, Row | Exception] = {}
        for together in _apart(steps):
            results = await self._make(move, together)
            self._then()
            made.update(zip(map(id, together), results, strict=True))
        return [made[id(step)] for step in steps]

    async def _make(self, move: Move, steps: Sequence[Step]) -> Sequence[Row | Exception]:
        """Move tasks in one transaction; what breaks it is found by taking them one by one."""
        try:
            async with self._db.connection(patient=True) as db:
                found = await move.make(db, steps)
        except Unavailable as error:
            return [error] * len(steps)
        except Exception as error:  # noqa: BLE001 -- it belongs to one of them
            if len(steps) == 1:
                return [error]
            return [(await self._make(move, [step]))[0] for step in steps]
        moved = {row[0]: row for row in found}
        return [moved.get(step.values[0]) or Fenced() for step in steps]


def _apart(steps: Sequence[Step]) -> Iterator[list[Step]]:
    """Groups without two steps of one task, which are made one after the other."""
    left = list(steps)
    while left:
        first = {step.values[0]: step for step in reversed(left)}
        yield list(first.values())
        left = [step for step in left if first[step.values[0]] is not step]
