"""A request held open until its task ends, whatever stands between server and client."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Final

from starlette.types import Receive, Scope, Send

from calotype.api.body import ClientGone
from calotype.api.context import Context, base_url
from calotype.api.openai import answers, errors
from calotype.api.openai.answers import Kind, Picture
from calotype.api.openai.fields import Asked
from calotype.api.openai.retries import tries_again_when_cut
from calotype.api.render import Answer
from calotype.api.waiting import MAX_WAIT, ended
from calotype.domain.errors import AssetNotFound, Unavailable
from calotype.domain.ids import encode
from calotype.domain.task import FINAL, Task

PATIENCE_SECONDS: Final = 25.0
"""How long the status stays open: the strictest of common proxies wait 30 s for a first byte."""
BEAT_SECONDS: Final = 15.0
_FAULT_SECONDS: Final = 1.0

log = logging.getLogger(__name__)


class Held:
    """One accepted request. A client that leaves finds its task in the list.

    Args:
        kind: which of the routes it came by.
        asked: how it wants to be answered.

    """

    def __init__(
        self,
        context: Context,
        scope: Scope,
        receive: Receive,
        send: Send,
        *,
        kind: Kind,
        asked: Asked,
    ) -> None:
        self._context = context
        self._scope = scope
        self._receive = receive
        self._send = send
        self._kind: Kind = kind
        self._asked = asked
        self._word = ""
        self._begun = False
        self._hung_up = False
        self._gone = False
        self.told = False
        """The outcome was sent whole, to a client that was still there."""

    async def until_ended(self, task_id: int) -> None:
        """Answer when the task has ended.

        Raises:
            ClientGone: the client hung up before.

        """
        self._word = encode("task", task_id)
        answering = asyncio.create_task(self._answer(task_id))
        leaving = asyncio.create_task(self._left())
        try:
            await asyncio.wait((answering, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not answering.done():
                raise ClientGone
            answering.result()
            if self._hung_up:
                await leaving
        finally:
            answering.cancel()
            leaving.cancel()
            await asyncio.wait((answering, leaving))

    async def _left(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True

    async def _answer(self, task_id: int) -> None:
        try:
            task = await self._outcome(task_id)
            if task is None:
                await self._refuse(errors.unfinished(self._word))
                self.told = False
            elif task.error is not None:
                await self._refuse(errors.failed(task.error))
            elif not self._context.delivery.has_images(task):
                gone = AssetNotFound(f"The image of {self._word} is gone.")
                await self._refuse(errors.broken(self._word, gone))
            else:
                await self._deliver(task)
        except Exception as error:
            log.exception("the outcome of %s could not be shown", self._word)
            if self._begun:
                self._hang_up()
            else:
                await self._refuse(errors.broken(self._word, error))

    # Waiting

    async def _outcome(self, task_id: int) -> Task | None:
        """The final task; None when nobody is to wait any longer."""
        patience = PATIENCE_SECONDS
        if self._asked.stream:
            await self._begin()
        while True:
            task = await self._final(task_id, patience)
            if task is not None or self._context.feed.closing:
                return task
            await self._begin()
            await self._body(answers.keep_alive(stream=self._asked.stream))
            patience = BEAT_SECONDS

    async def _final(self, task_id: int, seconds: float) -> Task | None:
        """The final task, or None after so long; a database that is away is waited for."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while not self._context.feed.closing:
                    try:
                        task = await ended(self._context, task_id, seconds=MAX_WAIT)
                        if task.state in FINAL:
                            return task
                    except Unavailable:
                        await asyncio.sleep(_FAULT_SECONDS)
        return None

    # Answering

    async def _deliver(self, task: Task) -> None:
        store = self._context.asset_store
        if self._asked.response_format == "url":
            await self._complete(_once(answers.linked(task, self._urls(task))))
            return
        pictures = [await self._picture(task, place) for place in range(len(task.result))]
        if self._asked.stream:
            await self._complete(answers.events(self._kind, task, pictures, store))
        else:
            await self._complete(answers.inline(task, pictures, store))

    def _urls(self, task: Task) -> list[str]:
        base, assets = base_url(self._scope, self._context.public_url), self._context.assets
        signed = [
            assets.url(image.asset_id, image.content_type, server=base, until=task.expires_at)
            for image in task.result
        ]
        return [url for url, _ in signed]

    async def _picture(self, task: Task, place: int) -> Picture:
        image = task.result[place]
        asset = await self._context.store.asset(image.asset_id)
        if asset is None or not await self._context.asset_store.holds(asset.key):
            raise AssetNotFound(f"The image of {self._word} is no longer stored.")
        return image, asset.key

    async def _refuse(self, answer: Answer) -> None:
        if not self._begun:
            headers = [*answer.headers, *answer.own, (b"content-length", b"%d" % len(answer.body))]
            await self._start(answer.status, headers)
            await self._end(answer.body)
        elif self._asked.stream:
            await self._complete(_once(answers.error_event(answer.body)))
        elif tries_again_when_cut(self._scope):  # its next try is told, with a status
            self._hang_up()
        else:
            await self._complete(_once(answer.body))

    def _hang_up(self) -> None:
        """End the connection in the middle of the answer, so that nobody takes it for whole."""
        self._hung_up = True
        self._scope["state"]["hang_up"]()

    async def _complete(self, pieces: AsyncIterator[bytes]) -> None:
        await self._begin()
        async for piece in pieces:
            await self._body(piece)
        await self._end(b"")

    async def _begin(self) -> None:
        if not self._begun:
            kind = (b"content-type", answers.media_type(stream=self._asked.stream))
            await self._start(200, [kind, (b"cache-control", b"no-store")])

    async def _start(self, status: int, headers: list[tuple[bytes, bytes]]) -> None:
        self._begun = True
        more = [
            (b"x-accel-buffering", b"no"),  # nginx would hold the keep-alive back
            (b"x-calotype-task-id", self._word.encode()),
        ]
        await self._send(
            {"type": "http.response.start", "status": status, "headers": [*headers, *more]}
        )

    async def _body(self, piece: bytes) -> None:
        await self._send({"type": "http.response.body", "body": piece, "more_body": True})

    async def _end(self, piece: bytes) -> None:
        there = not self._gone  # afterwards, the end of the answer counts as leaving, too
        await self._send({"type": "http.response.body", "body": piece})
        self.told = there


async def _once(piece: bytes) -> AsyncIterator[bytes]:
    yield piece
