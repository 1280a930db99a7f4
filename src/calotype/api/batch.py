"""POST /v1/images/generations/batch."""

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from calotype.api.allowance import tell_account, tell_allowance
from calotype.api.body import media_type, read_json
from calotype.api.context import Context, authenticate, header
from calotype.api.images import envelope
from calotype.api.intake import Intake
from calotype.api.render import error_document, json_answer
from calotype.domain.catalog import quoted
from calotype.domain.errors import (
    CalotypeError,
    InvalidParameter,
    MissingField,
    UnsupportedMediaType,
    UnsupportedParameter,
)
from calotype.domain.keys import ApiKey
from calotype.domain.task import State
from calotype.services.submission import Accepted, Asked, check_idempotency_key

MAX_REQUESTS: Final = 100
MAX_BYTES: Final = 4 * 1024 * 1024
REQUESTS: Final = "requests"
IDEMPOTENCY_KEY: Final = "idempotency_key"
RETRY_AFTER: Final = "retry_after"


class Batch:
    """Accepts many image requests at once, each on its own."""

    def __init__(self, context: Context, intake: Intake) -> None:
        self._context = context
        self._intake = intake

    async def handle(self, request: Request) -> Response:
        """Answer 202 once every task that was accepted is durable."""
        scope = request.scope
        key = await authenticate(scope, self._context.accounts)
        try:
            results = await self._results(request, key)
        finally:
            await tell_allowance(scope, key, self._context.accounts)
        taken = [one.task.allowance for one in results if isinstance(one, Accepted)]
        tell_account(scope, taken[-1] if taken else None)
        document = {"object": "list", "data": [_shown(result) for result in results]}
        return json_answer(202, document).response()

    async def _results(self, request: Request, key: ApiKey) -> list[Accepted | CalotypeError]:
        scope = request.scope
        if header(scope, b"idempotency-key") is not None:
            raise InvalidParameter(
                "Idempotency-Key is for a single request; give each request of a batch an "
                f"{IDEMPOTENCY_KEY} of its own.",
                param="Idempotency-Key",
            )
        kind, _ = media_type(scope)
        if kind != "application/json":
            raise UnsupportedMediaType(
                f"A batch is application/json, not {kind}; give its references as URLs."
            )
        requests = _requests(await read_json(scope, request.receive, limit=MAX_BYTES))
        return await self._context.submission.submit_batch(
            key,
            [self._asked(each) for each in requests],
            request_id=request.state.request_id,
        )

    def _asked(self, entry: object) -> Asked | CalotypeError:
        """One request of the batch, or why it cannot be read."""
        try:
            if not isinstance(entry, dict):
                raise InvalidParameter(
                    f'A request must be an object, such as {{"model": …}}, not {quoted(entry)}.',
                    param=REQUESTS,
                )
            fields = dict(entry)
            idempotency_key = fields.pop(IDEMPOTENCY_KEY, None)
            if not isinstance(idempotency_key, str | None):
                raise InvalidParameter(
                    f"{IDEMPOTENCY_KEY} must be a string, not {quoted(idempotency_key)}.",
                    param=IDEMPOTENCY_KEY,
                )
            check_idempotency_key(idempotency_key, name=IDEMPOTENCY_KEY)
            references = self._intake.references(fields)
        except CalotypeError as error:
            return error
        return Asked(fields, references, text=False, idempotency_key=idempotency_key)


def _requests(document: dict[str, object]) -> list[object]:
    """The requests of a batch, as they came.

    Raises:
        errors.InvalidRequest: there are none or too many, or something else is there.

    """
    if others := [name for name in document if name != REQUESTS]:
        raise UnsupportedParameter(
            f"A batch has no field {quoted(others[0])}; it has {REQUESTS} alone, each of them with "
            "the fields of a request."
        )
    requests = document.get(REQUESTS)
    if requests is None:
        raise MissingField(f"{REQUESTS} is required: a list of requests.", param=REQUESTS)
    if not isinstance(requests, list) or not 1 <= len(requests) <= MAX_REQUESTS:
        many = f"{len(requests)} of them" if isinstance(requests, list) else quoted(requests)
        raise InvalidParameter(
            f"{REQUESTS} must be a list of 1 to {MAX_REQUESTS} requests, not {many}.",
            param=REQUESTS,
        )
    return requests


def _shown(result: Accepted | CalotypeError) -> dict[str, Any]:
    if not isinstance(result, CalotypeError):
        return envelope(result, State.WAITING)
    error = error_document(result)
    if result.retry_after is not None:  # each has its own, so no header can say it
        error[RETRY_AFTER] = result.retry_after
    return {"error": error}
