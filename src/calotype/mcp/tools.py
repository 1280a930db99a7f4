"""The tools: each is a few calls of the client."""

import asyncio
import logging
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Any, Final

from mcp_types import CallToolResult

from calotype.client import AsyncCalotype, AsyncTask, CalotypeError, TaskFailed, WaitTimeout
from calotype.mcp import models, results
from calotype.mcp.arguments import (
    CancelTask,
    EditImage,
    GenerateImage,
    GetTask,
    ListModels,
    ListTasks,
)
from calotype.mcp.faults import BROKEN, ToolFault, in_doubt, told
from calotype.mcp.message import Cuts
from calotype.mcp.previews import Previews
from calotype.mcp.references import Reference, References

Document = dict[str, Any]
Tell = Callable[[AsyncTask], Awaitable[None]]
"""Takes a task as it was seen last."""

_LOOK_SECONDS: Final = 1.0
"""How often a task that is waited for is looked at, to tell of its progress."""
_OWN: Final = frozenset(
    {
        "self",
        "prompt",
        "model",
        "references",
        "n",
        "channel_id",
        "callback_url",
        "metadata",
        "deadline_seconds",
        "idempotency_key",
    }
)
"""Names that mean something of their own to the client, and are no parameters of a model."""

log = logging.getLogger(__name__)


class Tools:
    """The tools in the hands of one caller.

    Args:
        client: with the caller's key.
        previews: shared by all callers of this process.
        files: whether references may be files of this machine.
        cuts: what was cut out of the message.
        stopping: whether nobody should be kept waiting any longer.

    """

    def __init__(
        self,
        client: AsyncCalotype,
        previews: Previews,
        *,
        files: bool = False,
        cuts: Cuts | None = None,
        stopping: Callable[[], bool] = lambda: False,
    ) -> None:
        self._client = client
        self._previews = previews
        self.files = files
        self._cuts = cuts
        self._stopping = stopping

    async def list_models(self, asked: ListModels, _tell: Tell | None) -> CallToolResult:
        """Every model briefly, or one with all that there is to know."""
        if asked.model is not None:
            return results.models([models.whole(await self._client.model(asked.model))])
        return results.models([models.brief(model) for model in await self._client.models()])

    async def generate_image(self, asked: GenerateImage, tell: Tell | None) -> CallToolResult:
        """A new task, and its image when that comes in time."""
        _judge(asked)
        return await self._bought(await self._submit(asked, ()), asked, tell)

    async def edit_image(self, asked: EditImage, tell: Tell | None) -> CallToolResult:
        """The same with references."""
        _judge(asked)
        model = await self._client.model(asked.model)
        with ExitStack() as held:
            reading = References(
                self._client,
                self._previews,
                model=model,
                files=self.files,
                cuts=self._cuts,
                held=held,
            )
            task = await self._submit(asked, await reading.read(asked.references))
        return await self._bought(task, asked, tell)

    async def get_task(self, asked: GetTask, tell: Tell | None) -> CallToolResult:
        """A task, and its image where it has one or gets one in time."""
        task = await self._client.task(asked.task_id)
        return await self._outcome(task, asked.wait_seconds, tell)

    async def cancel_task(self, asked: CancelTask, _tell: Tell | None) -> CallToolResult:
        """The task as it stands once it has been told to end."""
        return results.cancelled((await self._client.cancel(asked.task_id)).raw)

    async def list_tasks(self, asked: ListTasks, _tell: Tell | None) -> CallToolResult:
        """The newest tasks."""
        found = self._client.tasks(state=asked.state, model=asked.model, limit=asked.limit)
        return results.tasks([task.raw async for task in found])

    async def _submit(self, asked: GenerateImage, references: Sequence[Reference]) -> AsyncTask:
        parameters: dict[str, Any] = dict(asked.parameters)
        key = asked.idempotency_key or str(uuid.uuid4())
        try:
            return await self._client.generate(
                asked.prompt,
                model=asked.model,
                references=references,
                n=asked.n,
                idempotency_key=key,
                **parameters,
            )
        except ValueError as error:  # what the client itself refuses to send
            raise ToolFault(str(error)) from error
        except CalotypeError:
            raise
        except Exception as error:
            log.exception("a submission broke")
            raise ToolFault(in_doubt(BROKEN, key)) from error

    async def _bought(
        self, task: AsyncTask, asked: GenerateImage, tell: Tell | None
    ) -> CallToolResult:
        """The outcome. Where that cannot be had, the task's id, lest the agent buy another one."""
        try:
            return await self._outcome(task, asked.wait_seconds, tell)
        except CalotypeError as error:
            why = told(error)
        except Exception:
            log.exception("%s could not be followed", task.id)
            why = BROKEN
        return results.unfollowed({"request": {"prompt": asked.prompt}, **task.raw}, why)

    async def _outcome(self, task: AsyncTask, seconds: int, tell: Tell | None) -> CallToolResult:
        document = await self._followed(task, seconds, tell)
        match str(document["state"]).lower():
            case "success":
                return await results.finished(document, self._client, self._previews)
            case "fail":
                return results.failed(document)
            case _:
                return results.unfinished(document)

    async def _followed(self, task: AsyncTask, seconds: int, tell: Tell | None) -> Document:
        """The task once it is final, or as it is when the time is over."""
        waiting = asyncio.create_task(_ended(task, seconds))
        try:
            while not (await asyncio.wait({waiting}, timeout=_LOOK_SECONDS))[0]:
                if self._stopping():
                    return (await task.refresh()).raw
                if tell is not None:
                    with suppress(CalotypeError):  # the wait itself says what cannot go on
                        await tell(await task.refresh())
            return waiting.result()
        finally:
            waiting.cancel()
            await asyncio.wait({waiting})


def _judge(asked: GenerateImage) -> None:
    """Refuse what would be taken for something of the client's own."""
    misplaced = sorted(_OWN & asked.parameters.keys())
    if misplaced:
        raise ToolFault(
            f"parameters.{misplaced[0]} is no parameter of a model; list_models tells those."
        )


async def _ended(task: AsyncTask, seconds: int) -> Document:
    try:
        return (await task.wait(seconds)).raw
    except (TaskFailed, WaitTimeout) as ended:
        return ended.task.raw
