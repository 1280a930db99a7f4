"""/v1/webhooks and /v1/tasks/{task_id}/webhook: settings, deliveries, their history."""

import re
from collections.abc import Mapping
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from calotype.api.body import read_json
from calotype.api.context import Context, authenticate, header
from calotype.api.render import json_answer
from calotype.domain.errors import InvalidParameter, MissingField
from calotype.domain.ids import decode, encode
from calotype.domain.task import Task
from calotype.domain.validation import integer_of
from calotype.domain.webhooks import MAX_OVERLAP_SECONDS, DeliveryState
from calotype.store.webhooks import STORED

DEFAULT_OVERLAP_SECONDS: Final = 24 * 3600
DEFAULT_LIMIT: Final = 20
MAX_LIMIT: Final = 100
_LIMIT: Final = re.compile(rf"[1-9][0-9]?|{MAX_LIMIT}")
_FRESH: Final = (b"cache-control", b"no-store")


class WebhookRoutes:
    """Lets accounts see to their webhooks."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def settings(self, request: Request) -> Response:
        """GET: URL and secrets. PUT: another URL, or none."""
        key = await authenticate(request.scope, self._context.accounts)
        if request.method == "PUT":
            return await self._set_url(request, key.account_id)
        return _answer(await self._context.webhooks.settings(key.account_id))

    async def _set_url(self, request: Request, account_id: int) -> Response:
        fields = await read_json(request.scope, request.receive)
        _only(fields, "url", example='{"url": "https://example.com/hook"}')
        if "url" not in fields:
            raise MissingField(
                'Send {"url": …} with the URL that is to be told, or null for none.', param="url"
            )
        return _answer(await self._context.webhooks.set_url(account_id, fields["url"]))

    async def rotate(self, request: Request) -> Response:
        """POST: a new secret beside the old one."""
        key = await authenticate(request.scope, self._context.accounts)
        if header(request.scope, b"idempotency-key") is not None:
            raise InvalidParameter(
                "Idempotency-Key does not apply here: each rotation makes a new secret. Look at "
                "GET /v1/webhooks to see whether one came through.",
                param="Idempotency-Key",
            )
        fields = await read_json(request.scope, request.receive, optional=True)
        _only(fields, "overlap_seconds", example='{"overlap_seconds": 86400}')
        overlap = _overlap(fields.get("overlap_seconds"))
        return _answer(await self._context.webhooks.rotate(key.account_id, overlap_seconds=overlap))

    async def delivery(self, request: Request) -> Response:
        """GET: how a task's webhook fares."""
        return _answer(await self._context.webhooks.delivery(await self._task(request)))

    async def redeliver(self, request: Request) -> Response:
        """POST: send it again."""
        task = await self._task(request)
        return _answer(await self._context.webhooks.redeliver(task), status=202)

    async def deliveries(self, request: Request) -> Response:
        """GET: the account's deliveries, newest first."""
        key = await authenticate(request.scope, self._context.accounts)
        query = request.query_params
        _only(query, "state", "limit", "cursor", example="?state=failed&limit=20")
        page = await self._context.webhooks.deliveries(
            key.account_id,
            state=_state(query.get("state")),
            before=_before(query.get("cursor")),
            limit=_limit(query.get("limit")),
        )
        return _answer(
            {
                "object": "list",
                "data": page.data,
                "has_more": page.last is not None,
                "next_cursor": None if page.last is None else encode("task", page.last),
            }
        )

    async def _task(self, request: Request) -> Task:
        key = await authenticate(request.scope, self._context.accounts)
        word = request.path_params["task_id"]
        return await self._context.delivery.find(word, account_id=key.account_id)


def _answer(document: Mapping[str, Any], *, status: int = 200) -> Response:
    return json_answer(status, document, headers=[_FRESH]).response()


def _only(given: Mapping[str, object], *known: str, example: str) -> None:
    for name in given:
        if name not in known:
            shown = name[:64].encode(errors="replace").decode()
            raise InvalidParameter(
                f"There is no '{shown}' here; send {' and '.join(known)}, as in {example}.",
                param=shown,
            )


def _overlap(given: object) -> int:
    if given is None:
        return DEFAULT_OVERLAP_SECONDS
    return integer_of(given, "overlap_seconds", minimum=0, maximum=MAX_OVERLAP_SECONDS, text=False)


def _state(given: str | None) -> DeliveryState | None:
    if given is None:
        return None
    if given not in STORED:
        raise InvalidParameter(f"state must be one of {', '.join(STORED)}.", param="state")
    return DeliveryState(given)


def _limit(given: str | None) -> int:
    if given is None:
        return DEFAULT_LIMIT
    if not _LIMIT.fullmatch(given):
        raise InvalidParameter(
            f"limit must be a whole number from 1 to {MAX_LIMIT}.", param="limit"
        )
    return int(given)


def _before(given: str | None) -> int | None:
    if given is None:
        return None
    found = decode("task", given)
    if found is None:
        raise InvalidParameter(
            "cursor must be the next_cursor of the page before; leave it out to begin.",
            param="cursor",
        )
    return found
