"""What can go wrong, by who can do something about it.

CalotypeError
├── APIError                  the server refused: see ``status`` and ``code``
│   ├── InvalidRequestError   400, 405, 408, 413, 415, 416, 431: change the request
│   ├── AuthenticationError   401: use another key
│   ├── BillingError          402: add credit
│   ├── PermissionDeniedError 403
│   ├── NotFoundError         404
│   ├── ConflictError         409: new request, new idempotency key
│   ├── RateLimitError        429: see ``retry_after``
│   └── ServerError           5xx
├── ConnectionFailed          no answer, after every try
├── TaskFailed                the task ended without an image: see ``task.error``
├── WaitTimeout               the task is not final yet; it goes on at the server
│   ├── TaskTimeout           of ``Calotype``
│   └── AsyncTaskTimeout      of ``AsyncCalotype``
└── WebhookVerificationError  not signed by who holds the secret
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from calotype.client.documents import TaskView


class CalotypeError(Exception):
    """Anything that this client raises, but for wrong arguments and files that cannot be read."""

    idempotency_key: str | None = None
    """Of a single submission: the same call with it goes on with its task, if one was made."""
    maybe_received = False
    """Of a call that was not answered as it should: whether the server may have carried it out."""


class APIError(CalotypeError):
    """The server answered, and not with what was asked for.

    Args:
        status: of HTTP.
        code: the precise cause, as the errors reference lists them; ``unexpected_response`` when
            the answer is none of a Calotype server.
        message: one sentence for a person.
        type: the family of the error.
        param: the field at fault, where there is one.
        request_id: what the operator finds the request by.
        retry_after: seconds after which the server wants to be asked again.

    """

    def __init__(  # noqa: PLR0917 -- by position, so that it can be pickled
        self,
        status: int,
        code: str,
        message: str,
        type: str = "",  # noqa: A002 -- the name that the contract has for it
        param: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(status, code, message, type, param, request_id, retry_after)
        self.status = status
        self.code = code
        self.message = message
        self.type = type
        self.param = param
        self.request_id = request_id
        self.retry_after = retry_after

    def __str__(self) -> str:
        return f"{self.message} ({self.code})"


class InvalidRequestError(APIError):
    """The request cannot be taken as it is."""


class AuthenticationError(APIError):
    """The key is missing, unknown, expired or revoked."""


class BillingError(APIError):
    """The account has too little."""


class PermissionDeniedError(APIError):
    """The key is good, and may not do this."""


class NotFoundError(APIError):
    """There is no such thing in this account."""


class ConflictError(APIError):
    """The idempotency key belongs to another request."""


class RateLimitError(APIError):
    """Too much at once; ``retry_after`` says when again."""


class ServerError(APIError):
    """The server cannot answer right now."""


class ConnectionFailed(CalotypeError):
    """No answer came.

    Args:
        message: what the network said.
        maybe_received: whether the server may have got the request all the same.

    """

    def __init__(self, message: str, *, maybe_received: bool = True) -> None:
        super().__init__(message)
        self.maybe_received = maybe_received


class TaskFailed(CalotypeError):
    """The task ended without an image; ``task.error`` says why, and whether anew may help."""

    def __init__(self, task: "TaskView") -> None:
        super().__init__(task)
        self.task = task

    def __str__(self) -> str:
        error = self.task.error
        told = f"{error.message} ({error.code})" if error else "no cause is told"
        return f"{self.task.id} failed: {told}"


class WaitTimeout(CalotypeError):
    """The task, as it was seen last, is not final; it goes on at the server.

    What a client raises is a ``TaskTimeout`` or an ``AsyncTaskTimeout``, whose task can be waited
    for again.
    """

    def __init__(self, task: "TaskView") -> None:
        super().__init__(task)
        self.task = task

    def __str__(self) -> str:
        return f"{self.task.id} is not final yet: {self.task.state}, {self.task.progress} %"


class WebhookVerificationError(CalotypeError):
    """The message is not, or not just now, from one who holds the secret."""


UNEXPECTED: Final = "unexpected_response"

_CLASSES: Final[Mapping[int, type[APIError]]] = {
    401: AuthenticationError,
    402: BillingError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    429: RateLimitError,
}
_STATUSES: Final[Mapping[str, int]] = {
    "bad_request": 400,
    "unauthorized": 401,
    "payment_required": 402,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "conflict": 409,
    "payload_too_large": 413,
    "unsupported_media_type": 415,
    "rate_limited": 429,
    "internal_error": 500,
    "bad_gateway": 502,
    "unavailable": 503,
}
_BAD_REQUEST, _SERVER_SIDE = 400, 500
_LONGEST: Final = 1 << 32  # seconds


def refusal(
    status: int,
    document: Mapping[str, Any],
    *,
    request_id: str | None = None,
    retry_after: float | None = None,
) -> APIError | None:
    """The error that an error body tells; None when it is none of a Calotype server."""
    message, code = document.get("message"), document.get("code")
    if not isinstance(message, str) or not isinstance(code, str):
        return None
    family, param = document.get("type"), document.get("param")
    return _class(status)(
        status,
        code,
        message,
        family if isinstance(family, str) else "",
        param if isinstance(param, str) else None,
        request_id,
        retry_after,
    )


def refusal_in_batch(document: Mapping[str, Any]) -> APIError | None:
    """The error of one request of a batch: status and ``Retry-After`` stand in its body."""
    after = document.get("retry_after")
    return refusal(
        _STATUSES.get(str(document.get("error")), _BAD_REQUEST),
        document,
        retry_after=float(after) if type(after) is int and 0 <= after < _LONGEST else None,
    )


def unexpected(status: int, message: str, *, retry_after: float | None = None) -> APIError:
    """An answer that no Calotype server gives."""
    return _class(status)(status, UNEXPECTED, message, retry_after=retry_after)


def _class(status: int) -> type[APIError]:
    if status >= _SERVER_SIDE:
        return ServerError
    return _CLASSES.get(status, InvalidRequestError if status >= _BAD_REQUEST else APIError)
