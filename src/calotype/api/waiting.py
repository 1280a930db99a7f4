"""Waiting for a task within a request: ``?wait=`` on reading, ``Prefer: wait=`` on submitting."""

import asyncio
import re
from contextlib import suppress
from typing import Final
from urllib.parse import parse_qsl

from starlette.types import Scope

from calotype.api.context import Context, header
from calotype.domain.errors import InvalidParameter
from calotype.domain.task import FINAL, Task

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


async def changed(context: Context, task: Task, *, seconds: int, since: int | None) -> Task:
    """A task once it is past event ``since``, or as it stands after so long; a final one at once.

    Without ``since`` that is the next change.
    """
    known = task.seq if since is None else since
    return await _until(context, task, seconds=seconds, known=known)


async def ended(context: Context, task: Task, *, seconds: int) -> Task:
    """A task once it is final, or as it stands after so long."""
    return await _until(context, task, seconds=seconds, known=None)


async def _until(context: Context, task: Task, *, seconds: int, known: int | None) -> Task:
    def enough(found: Task) -> bool:
        return found.state in FINAL or (known is not None and found.seq > known)

    if enough(task) or seconds == 0:
        return task
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds), context.feed.waking(task_id=task.id) as wake:
            task = await context.store.task(task.id) or task
            while not enough(task) and not context.feed.closing:
                await wake.wait()
                wake.clear()
                task = await context.feed.task(task.id) or task
    return task
