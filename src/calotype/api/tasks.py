"""GET and DELETE /v1/tasks/{task_id}."""

from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from calotype.api.context import Context, authenticate, base_url, bearer
from calotype.api.render import JSON, Answer, json_answer
from calotype.api.waiting import asked_wait, changed

PREFIX: Final = "/v1/tasks/"

FRESH: Final = (b"cache-control", b"no-store")
"""The header of what changes at any time."""
_HEADERS: Final = (JSON, FRESH)


class Tasks:
    """Shows tasks to their owners, and deletes their images."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def handle(self, scope: Scope) -> Answer:
        """The task that the path names."""
        key = await authenticate(scope, self._context.accounts)
        word = scope["path"].removeprefix(PREFIX)
        base = base_url(scope, self._context.public_url)
        delivery = self._context.delivery
        if not scope["query_string"]:
            body = await delivery.encoded(word, account_id=key.account_id, base_url=base)
            return Answer(200, body, _HEADERS)
        wait, since = asked_wait(scope)
        task = await changed(
            self._context, word, account_id=key.account_id, seconds=wait, since=since
        )
        return json_answer(200, await delivery.document(task, base_url=base), headers=[FRESH])

    def ready(self, scope: Scope, word: str) -> Answer | None:
        """What ``handle`` answers to a request without a query; None where that takes waiting."""
        if not self._context.delivery.keeps_ready:
            return None
        try:
            base = base_url(scope, self._context.public_url)
            kept = self._context.delivery.ready(word, base_url=base)
            if kept is None:
                return None
            key = self._context.accounts.recognise(bearer(scope))
        except Exception:  # noqa: BLE001 -- ``handle`` meets it as well, and tells of it
            return None
        if key is None or key.account_id != kept.account_id:
            return None
        return Answer(200, kept.body, _HEADERS)

    async def delete(self, request: Request) -> Response:
        """Nothing, once the images of the task are gone; a body means nothing."""
        key = await authenticate(request.scope, self._context.accounts)
        word = request.path_params["task_id"]
        await self._context.deleting.delete(word, account_id=key.account_id)
        return Response(status_code=204)
