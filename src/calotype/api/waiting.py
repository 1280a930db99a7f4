"""Waiting for a task within a request: ``?wait=`` on reading, ``Prefer: wait=`` on submitting."""

import re
from collections.abc import Awaitable, Callable
from functools import lru_cache, partial
from typing import Final
from urllib.parse import parse_qsl

from starlette.types import Scope

from calotype.api.context import Context, header
from calotype.domain.errors import InvalidParameter, TaskNotFound
from calotype.domain.ids import decode, encode
from calotype.domain.task import FINAL, State, Task
from calotype.observing.metrics import HELD

MAX_WAIT: Final = 60
_USUAL_QUERY: Final = 64
"""Bytes: clients ask the same again and again, and what is longer is not remembered."""
_LAST: Final = 10**9
"""A number that no event has: only the end of a task comes after it."""
_PREFERRED: Final = re.compile(r"(?:^|[,;\s])wait\s*=\s*\"?(\d{1,4})\"?(?:$|[,;\s])", re.IGNORECASE)


def asked_wait(scope: Scope) -> tuple[int, int | None]:
    """Seconds to wait, and the event that the client knows, from a query.

    Raises:
        errors.InvalidParameter: one of them is no such number.

    """
    query = scope["query_string"]
    return _usually_asked(query) if len(query) <= _USUAL_QUERY else _asked(query)


def _asked(query: bytes) -> tuple[int, int | None]:
    fields = dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True))
    wait = _number(fields.get("wait", "0"), "wait", most=MAX_WAIT)
    since = fields.get("since")
    return wait, None if since is None else _number(since, "since", most=_LAST)


_usually_asked = lru_cache(maxsize=256)(_asked)


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
    return await _past(context, task_id, find, since=since, seconds=seconds)


async def ended(context: Context, task_id: int, *, seconds: int) -> Task:
    """A task once it is final, or as it stands after so long.

    Raises:
        errors.TaskNotFound: it is no longer kept.

    """

    async def read() -> Task:
        if (task := await context.store.task(task_id)) is None:
            raise TaskNotFound(f"{encode('task', task_id)} is no longer kept.")
        return task

    return await _past(context, task_id, read, since=_LAST, seconds=seconds)


async def final_state(context: Context, task_id: int, *, seconds: int) -> State | None:
    """The state of a task once it is final, or as it is after so long; None if it is not kept."""
    feed = context.feed
    with HELD.during("poll"):
        async with feed.waking(task_id=task_id, seconds=seconds) as wake:
            wake.after = _LAST
            standing = await context.store.standing(task_id)
            if standing is not None and standing.completed_at is None:
                while not (wake.ended or wake.over or feed.closing):
                    await wake.wait()
                    wake.clear()
    if wake.ended is not None:
        return wake.ended
    task = await context.store.task(task_id)
    return None if task is None else task.state


async def _past(
    context: Context,
    task_id: int,
    read: Callable[[], Awaitable[Task]],
    *,
    since: int | None,
    seconds: int,
) -> Task:
    """A task that is past an event; read once, and again when the feed tells that it is."""
    feed = context.feed
    with HELD.during("poll"):
        async with feed.waking(task_id=task_id, seconds=seconds) as wake:
            task = await read()
            wake.after = task.seq if since is None else since
            while not (task.state in FINAL or task.seq > wake.after or wake.over or feed.closing):
                await wake.wait()
                wake.clear()
                task = await feed.task(task_id) or task
    return task
