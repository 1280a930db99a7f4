"""POST /v1/tasks/{task_id}/cancel."""

from starlette.requests import Request
from starlette.responses import Response

from calotype.api.context import Context, authenticate, base_url
from calotype.api.render import json_answer


class Cancel:
    """Cancels tasks for their owners."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def handle(self, request: Request) -> Response:
        """The task as cancelling left it; a body means nothing."""
        key = await authenticate(request.scope, self._context.accounts)
        task = await self._context.cancelling.cancel(
            request.path_params["task_id"], account_id=key.account_id
        )
        document = await self._context.delivery.document(
            task, base_url=base_url(request.scope, self._context.public_url)
        )
        return json_answer(200, document).response()
