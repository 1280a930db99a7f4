"""POST /v1/images/generations."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from starlette.types import Receive, Scope

from calotype.api.body import check_length, media_type, read_json, stream
from calotype.api.context import Context, authenticate, header
from calotype.api.multipart import Form, read_form, too_many_references
from calotype.api.render import Answer, json_answer
from calotype.api.waiting import ended, preferred_wait
from calotype.domain.catalog import Catalog
from calotype.domain.ids import encode
from calotype.domain.keys import ApiKey
from calotype.domain.task import Reference, State
from calotype.services.delivery import hints
from calotype.services.submission import AcceptanceInDoubt, Accepted

_FORM_TEXT: Final = 4 * 1024 * 1024
"""Bytes of a form beyond its files."""


class Generations:
    """Accepts image requests, as JSON or as a form."""

    def __init__(self, context: Context) -> None:
        self._context = context
        references = [model.references for model in context.catalog.models.values()]
        self._max_references = most_references(context.catalog)
        self._max_file = max(reference.max_bytes for reference in references)
        self._max_form = self._max_references * self._max_file + _FORM_TEXT

    async def handle(self, scope: Scope, receive: Receive, request_id: str) -> Answer:
        """Answer 202 once the task is durable."""
        key = await authenticate(scope, self._context.accounts)
        kind, content_type = media_type(scope)
        if kind == "application/json":
            accepted = await self._from_json(scope, receive, key, request_id=request_id)
        else:
            accepted = await self._from_form(
                scope, receive, key, request_id=request_id, content_type=content_type
            )
        headers: list[tuple[bytes, bytes]] = []
        state = State.WAITING
        if seconds := preferred_wait(scope):
            state = await self._state_after(accepted.task.task_id, seconds)
            headers.append((b"preference-applied", b"wait=%d" % seconds))
        document = envelope(accepted, state)
        headers.append((b"location", document["poll_url"].encode()))
        return json_answer(202, document, headers=headers)

    async def _state_after(self, task_id: int, seconds: int) -> State:
        """The state of a task once it is final, or after so long."""
        task = await self._context.store.task(task_id)
        if task is None:
            return State.WAITING
        return (await ended(self._context, task, seconds=seconds)).state

    async def _from_json(
        self, scope: Scope, receive: Receive, key: ApiKey, *, request_id: str
    ) -> Accepted:
        fields = await read_json(scope, receive)
        references = take_references(self._context, fields, limit=self._max_references)
        return await self._context.submission.submit(
            key,
            fields,
            references=references,
            text=False,
            request_id=request_id,
            idempotency_key=_idempotency_key(scope),
        )

    async def _from_form(
        self, scope: Scope, receive: Receive, key: ApiKey, *, request_id: str, content_type: bytes
    ) -> Accepted:
        check_length(scope, limit=self._max_form)
        form = Form({}, [])
        try:
            await read_form(
                stream(receive, limit=self._max_form),
                form,
                content_type=content_type,
                keep=partial(
                    self._context.assets.keep,
                    account_id=key.account_id,
                    kind="reference",
                    max_bytes=self._max_file,
                ),
                judge=self._context.references.judge,
                max_references=self._max_references,
            )
            return await self._context.submission.submit(
                key,
                form.fields,
                references=form.references,
                text=True,
                request_id=request_id,
                idempotency_key=_idempotency_key(scope),
            )
        except AcceptanceInDoubt:  # what a task may refer to stays
            raise
        except Exception:  # not when cancelled: the task may have been accepted by then
            await self._context.assets.discard([upload.asset for upload in form.uploads])
            raise


def envelope(accepted: Accepted, state: State) -> dict[str, Any]:
    """What a client is told of a request that was accepted."""
    word = encode("task", accepted.task.task_id)
    return {
        "task_id": word,
        "object": "task",
        "model": accepted.model,
        "type": "image",
        "state": state,
        "created_at": accepted.task.created_at // 1000,
        "poll_url": f"/v1/tasks/{word}",
        "request_id": accepted.task.request_id,
        **hints(accepted.eta_seconds, spent_ms=0),
    }


def most_references(catalog: Catalog) -> int:
    """More references than that no model takes."""
    return max(model.references.max_items for model in catalog.models.values())


def take_references(
    context: Context, fields: dict[str, object], *, limit: int
) -> Sequence[Reference]:
    """Take the references out of a request as JSON, judged; unread where there are too many."""
    urls = fields.pop("image_input", None)
    if isinstance(urls, list) and len(urls) > limit:
        raise too_many_references(limit)
    return context.references.judge(urls)


def _idempotency_key(scope: Scope) -> str | None:
    key = header(scope, b"idempotency-key")
    return None if key is None else key.decode("latin-1")
