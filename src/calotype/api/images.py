"""POST /v1/images/generations."""

from contextlib import suppress
from typing import Any

from starlette.types import Receive, Scope

from calotype.api.allowance import tell_account, tell_allowance
from calotype.api.body import media_type
from calotype.api.context import Context, authenticate
from calotype.api.intake import Intake, idempotency_key
from calotype.api.render import Answer, json_answer
from calotype.api.waiting import final_state, preferred_wait
from calotype.domain.errors import Unavailable
from calotype.domain.ids import encode
from calotype.domain.keys import ApiKey
from calotype.domain.task import State
from calotype.services.delivery import hints
from calotype.services.submission import Accepted


class Generations:
    """Accepts image requests, as JSON or as a form."""

    def __init__(self, context: Context, intake: Intake) -> None:
        self._context = context
        self._intake = intake

    async def handle(self, scope: Scope, receive: Receive, request_id: str) -> Answer:
        """Answer 202 once the task is durable."""
        key = await authenticate(scope, self._context.accounts)
        try:
            kind, content_type = media_type(scope)
            if kind == "application/json":
                accepted = await self._from_json(scope, receive, key, request_id=request_id)
            else:
                accepted = await self._from_form(
                    scope, receive, key, request_id=request_id, content_type=content_type
                )
        finally:
            await tell_allowance(scope, key, self._context.accounts)
        tell_account(scope, accepted.task.allowance)
        headers: list[tuple[bytes, bytes]] = []
        state = State.WAITING
        if seconds := preferred_wait(scope):
            state = await self._state_after(accepted.task.task_id, seconds)
            headers.append((b"preference-applied", b"wait=%d" % seconds))
        document = envelope(accepted, state)
        headers.append((b"location", document["poll_url"].encode()))
        return json_answer(202, document, own=headers)

    async def _state_after(self, task_id: int, seconds: int) -> State:
        """The state of a task once it is final, or after so long; it is accepted all the same."""
        with suppress(Unavailable):
            return await final_state(self._context, task_id, seconds=seconds) or State.WAITING
        return State.WAITING

    async def _from_json(
        self, scope: Scope, receive: Receive, key: ApiKey, *, request_id: str
    ) -> Accepted:
        fields, references = await self._intake.json(scope, receive)
        return await self._context.submission.submit(
            key,
            fields,
            references=references,
            text=False,
            request_id=request_id,
            idempotency_key=idempotency_key(scope),
        )

    async def _from_form(
        self, scope: Scope, receive: Receive, key: ApiKey, *, request_id: str, content_type: bytes
    ) -> Accepted:
        async with self._intake.form(scope, receive, key, content_type=content_type) as form:
            return await self._context.submission.submit(
                key,
                form.fields,
                references=form.references,
                text=True,
                request_id=request_id,
                idempotency_key=idempotency_key(scope),
            )


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
