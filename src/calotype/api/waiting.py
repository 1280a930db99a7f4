"""Waiting for a task within a request: ``?wait=`` on reading, ``Prefer: wait=`` on submitting."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final
from urllib.parse import parse_qsl

from starlette.types import Scope

from calotype.api.context import Context, header
from calotype.domain.errors import InvalidParameter
from calotype.domain.ids import decode
from calotype.domain.task import FINAL, Task
from calotype.observing.metrics import HELD

MAX_WAIT: Final = 60
_PREFERRED: Final = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,4})\"?(?:$|[,;\s])", re.IGNORECASE)


def asked_wait(scope: Scope) -> tuple[int, int | None]:
    """Seconds to wait, and the event that the client knows, from a query.

    Raises:
        errors.InvalidParameter: one of them is no such number.

    """
    query = dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True))
    wait = _number(query.get("wait", "0"), "wait", most=MAX_WAIT)
    since = query.get("since")
    return wait, None if since is None else _number(since, "since", most=10**9)


def preferred_wait(scope: Scope) -> int:
    """Seconds that a submission would like to wait; what is not understood is no wish."""
    given = header(scope, b"prefer")
    match = _PREFERRED.search(given.decode("latin-1")) if given else None
    return min(MAX_WAIT, int(match[1])) if match else 0


def _number(text: str, name: str, *, most: int) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 10 or int(text) > most:  # noqa: PLR2004 -- digits that are read
        raise InvalidParameter(f"{name} must be a whole number from 0 to {most}.", param=name)
    return int(text)


async def changed(
    context: Context, word: str, *, account_id: int, seconds: int, since: int | None
) -> Task:
    """A task once it is past event ``since``, or as it stands after so long; a final one at once.

    Without ``since`` that is the next change.

    Raises:
        errors.TaskNotFound: the account has none of this public id.

    """
    find = partial(context.delivery.find, word, account_id=account_id)
    task_id = decode("task", word)
    if seconds == 0 or task_id is None:
        return await find()

    def enough(task: Task, first: Task) -> bool:
        return task.state in FINAL or task.seq > (first.seq if since is None else since)

    return await _until(context, task_id, find, enough=enough, seconds=seconds)


async def ended(context: Context, task: Task, *, seconds: int) -> Task:
    """A task once it is final, or as it stands after so long."""

    async def read() -> Task:
        return await context.store.task(task.id) or task

    def enough(task: Task, _first: Task) -> bool:
        return task.state in FINAL

    if task.state in FINAL or seconds == 0:
        return task
    return await _until(context, task.id, read, enough=enough, seconds=seconds)


async def _until(
    context: Context,
    task_id: int,
    read: Callable[[], Awaitable[Task]],
    *,
    enough: Callable[[Task, Task], bool],
    seconds: int,
) -> Task:
    """A task once it is enough beside what it was first; read once, and again when it is news."""
    feed, over = context.feed, False
    async with feed.waking(task_id=task_id) as wake:

        def end() -> None:
            nonlocal over
            over = True
            wake.set()

        timer = asyncio.get_running_loop().call_later(seconds, end)
        HELD.add("poll")
        try:
            first = task = await read()
            while not (enough(task, first) or over or feed.closing):
                await wake.wait()
                if not over:
                    wake.clear()
                    task = await feed.task(task_id) or task
        finally:
            timer.cancel()
            HELD.add("poll", by=-1)
    return task
