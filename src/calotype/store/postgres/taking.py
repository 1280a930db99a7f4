"""Taking tasks up, and beginning the first attempt of new ones in the same transaction."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from calotype.domain.task import Event
from calotype.store import rows
from calotype.store.postgres.connection import Connection
from calotype.store.postgres.moves import Move, Step
from calotype.store.postgres.transitions import BEGIN_ATTEMPT, TAKE


class Take(Move):
    """Rows of three: the task's id, the task, and the number of the attempt begun with it.

    That is None where none was chosen, or the client has asked for the task to be stopped.
    """

    async def make(self, connection: Connection, steps: Sequence[Step]) -> list[rows.Row]:
        """Take tasks up by their id and the time."""
        asking = {step.values[0]: step for step in steps}
        begun: dict[int, int] = {}
        async with connection.transaction():
            tasks = [rows.task(row) for row in await super().make(connection, steps)]
            beginning: defaultdict[Event, list[Step]] = defaultdict(list)
            for task in tasks:
                _, now = asking[task.id].values
                choose = asking[task.id].choose
                if task.claim == 1 and choose is not None and (begin := choose(task)) is not None:
                    values = (task.id, task.claim, 0, now, begin.channel_id)
                    beginning[begin.event].append(Step(values))
            for event, begins in beginning.items():
                made = await BEGIN_ATTEMPT[event].make(connection, begins)
                begun |= {row[0]: row[1] for row in made}
        return [(task.id, task, begun.get(task.id)) for task in tasks]


TAKE_AND_BEGIN: Final = Take(TAKE.statement)
