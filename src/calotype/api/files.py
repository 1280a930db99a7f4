"""POST and GET /v1/files, GET and DELETE /v1/files/{file_id}."""

from starlette.requests import Request
from starlette.responses import Response

from calotype.api.context import Context, authenticate, base_url
from calotype.api.intake import Intake
from calotype.api.render import json_answer
from calotype.api.task_list import read_page
from calotype.api.tasks import FRESH
from calotype.domain.errors import InsufficientBalance
from calotype.domain.ids import encode


class Files:
    """Takes files in, and shows them to their owners."""

    def __init__(self, context: Context, intake: Intake) -> None:
        self._context = context
        self._intake = intake

    async def all(self, request: Request) -> Response:
        """Upload one, or list them."""
        return await (self._create if request.method == "POST" else self._list)(request)

    async def one(self, request: Request) -> Response:
        """Show one, or delete it; a body means nothing."""
        key = await authenticate(request.scope, self._context.accounts)
        word, files = request.path_params["file_id"], self._context.files
        if request.method == "DELETE":
            await files.delete(word, account_id=key.account_id)
            return Response(status_code=204)
        file = await files.find(word, account_id=key.account_id)
        base = base_url(request.scope, self._context.public_url)
        document = files.document(file, base_url=base)
        return json_answer(200, document, headers=[FRESH]).response()

    async def _create(self, request: Request) -> Response:
        """Answer 201 with the new file, or 200 with the one that has the same bytes."""
        key = await authenticate(request.scope, self._context.accounts)
        if (await self._context.store.balance(key.account_id)).available <= 0:
            raise InsufficientBalance(
                "The account has no credit available, and files are for requests that it pays "
                "for; add credit or wait for running tasks to end."
            )
        files = self._context.files
        uploaded = await files.add(await self._intake.file(request.scope, request.receive, key))
        base = base_url(request.scope, self._context.public_url)
        document = files.document(uploaded.file, base_url=base)
        headers = [FRESH, (b"location", f"/v1/files/{document['id']}".encode())]
        return json_answer(201 if uploaded.is_new else 200, document, headers=headers).response()

    async def _list(self, request: Request) -> Response:
        key = await authenticate(request.scope, self._context.accounts)
        asked, files = read_page(request.scope["query_string"]), self._context.files
        found = await files.page(
            key.account_id,
            before=asked.before,
            limit=asked.limit + 1,  # one more, to know whether there is another page
        )
        page, has_more = found[: asked.limit], len(found) > asked.limit
        base = base_url(request.scope, self._context.public_url)
        document = {
            "object": "list",
            "data": [files.document(file, base_url=base) for file in page],
            "has_more": has_more,
            "next_cursor": encode("page", page[-1].id) if has_more else None,
        }
        return json_answer(200, document, headers=[FRESH]).response()
