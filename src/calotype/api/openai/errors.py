"""Errors as OpenAI's clients read them, and with statuses that no client tries again by itself.

Before a task is accepted an error has its usual status. Afterwards another try would be another
purchase, so what went wrong is answered 400 where the client can mend it and 424 otherwise: both
are final to every client. ``x-should-retry`` says the same to OpenAI's own, or that they may try
again where that finds the accepted task instead of making another.
"""

from typing import Any, Final

import msgspec

from calotype.api import render
from calotype.api.render import Answer, json_answer
from calotype.domain.errors import CalotypeError, Failure, IdempotencyConflict

PREFIX: Final = "/openai/"
POLICY: Final = "content_policy_violation"

_MENDABLE: Final = frozenset(
    {POLICY, "reference_fetch_failed", "reference_too_large", "unsupported_reference_type"}
)
_RETRY: Final = (b"x-should-retry", b"true")
_NO_RETRY: Final = (b"x-should-retry", b"false")
_FAILED_DEPENDENCY: Final = 424

_encode = msgspec.json.Encoder().encode


def error_answer(error: CalotypeError) -> Answer:
    """An error that was met before a task was accepted."""
    ours = render.error_answer(error)
    own = ours.own
    if isinstance(error, IdempotencyConflict):  # their clients try a 409 again
        own = (*own, _NO_RETRY)
    return Answer(ours.status, _encode(_document(error)), ours.headers, own)


def in_doubt(error: CalotypeError) -> Answer:
    """The database went away while a task was being written: it may have been accepted."""
    return _later(_document(error), retry_after=error.retry_after or 1)


def unfinished(task_word: str) -> Answer:
    """An accepted task that this server cannot wait for any longer; it goes on elsewhere."""
    message = f"This server stops; {task_word} goes on, GET /v1/tasks/{task_word} shows it."
    return _later(_body(message, "server_error", None, "service_unavailable"), retry_after=2)


def broken(task_word: str, error: Exception) -> Answer:
    """An accepted task whose outcome cannot be shown."""
    if isinstance(error, CalotypeError):
        return json_answer(_FAILED_DEPENDENCY, _document(error), headers=[_NO_RETRY])
    message = f"Something broke on our side; GET /v1/tasks/{task_word} shows the task."
    document = _body(message, "server_error", None, "internal_error")
    return json_answer(_FAILED_DEPENDENCY, document, headers=[_NO_RETRY])


def failed(failure: Failure) -> Answer:
    """An accepted task that ended without an image."""
    family = "image_generation_user_error" if failure.code == POLICY else failure.type
    document = _body(failure.message, family, None, failure.code)
    status = 400 if failure.code in _MENDABLE else _FAILED_DEPENDENCY
    return json_answer(status, document, headers=[_NO_RETRY])


def _later(document: dict[str, Any], *, retry_after: int) -> Answer:
    """Final to most; OpenAI's own clients try again and are given the same task."""
    headers = [_RETRY, (b"retry-after", str(retry_after).encode())]
    return json_answer(_FAILED_DEPENDENCY, document, headers=headers)


def _document(error: CalotypeError) -> dict[str, Any]:
    return _body(error.message, error.family, error.param, error.code)


def _body(message: str, family: str, param: str | None, code: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": family, "param": param, "code": code}}
