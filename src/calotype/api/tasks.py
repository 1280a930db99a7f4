"""GET and DELETE /v1/tasks/{task_id}."""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from calotype.api.context import Context, authenticate, base_url
from calotype.api.render import Answer, json_answer
from calotype.api.waiting import asked_wait, changed

PREFIX: Final = "/v1/tasks/"

FRESH: Final = (b"cache-control", b"no-store")
"""The header of what changes at any time."""


class Tasks:
    """Shows tasks to their owners, and deletes their images."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def handle(self, scope: Scope) -> Answer:
        """The task that the path names."""
        key = await authenticate(scope, self._context.accounts)
        word = scope["path"].removeprefix(PREFIX)
        task = await self._context.delivery.find(word, account_id=key.account_id)
        if scope["query_string"]:
            wait, since = asked_wait(scope)
            task = await changed(self._context, task, seconds=wait, since=since)
        document = await self._context.delivery.document(
            task, base_url=base_url(scope, self._context.public_url)
        )
        return json_answer(200, document, headers=[FRESH])

    async def delete(self, request: Request) -> Response:
        """Nothing, once the images of the task are gone; a body means nothing."""
        key = await authenticate(request.scope, self._context.accounts)
        word = request.path_params["task_id"]
        await self._context.deleting.delete(word, account_id=key.account_id)
        return Response(status_code=204)
