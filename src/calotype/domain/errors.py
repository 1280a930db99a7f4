"""Every error a client can meet, in one tree.

CalotypeError
├── InvalidRequest        the request is wrong; the same request fails again
│   ├── MissingField, InvalidParameter, UnsupportedParameter, UnsupportedResponseFormat
│   ├── UnknownModel, UnknownChannel
│   ├── TooManyReferences, ReferenceTooLarge, UnsupportedReferenceType
│   ├── MalformedBody, UnsupportedMediaType, BodyTooLarge, HeadTooLarge, RequestTimeout
│   ├── RangeNotSatisfiable
│   └── IdempotencyConflict, TaskNotFinal
├── AuthenticationError   MissingKey, InvalidKey
├── BillingError          InsufficientBalance, SpendLimitReached
├── PermissionDenied      InvalidSignature, ExpiredUrl, ModelNotAllowed, ChannelNotAllowed
├── TooMany               RateLimitReached, QueueFull: a little later the same request is taken
├── NotFound              UnknownRoute, MethodNotAllowed, TaskNotFound, AssetNotFound,
│                         BrandNotFound, ModelNotFound, CallbackNotFound, WebhookNotFound,
│                         FileNotFound
└── ServerFault           InternalError, Unavailable

Each class carries its ``code`` (the precise cause), its ``family`` (the ``type`` of the answer)
and whether trying again can help. Which HTTP status goes with a code is the API's business
(``api/render.py``). ``FAILURES`` lists the codes with which an accepted task can fail.
"""

from typing import TYPE_CHECKING, ClassVar, Final, Literal

import msgspec

if TYPE_CHECKING:
    from calotype.domain.limits import Allowance

Family = Literal[
    "invalid_request_error",
    "authentication_error",
    "billing_error",
    "permission_error",
    "not_found_error",
    "rate_limit_error",
    "upstream_error",
    "server_error",
]


class CalotypeError(Exception):
    """Base of all errors that are shown to a client.

    Args:
        message: one sentence for a person: what is wrong, and what would be right.
        param: the request field at fault, where there is one.
        retry_after: seconds after which trying again makes sense.

    """

    code: ClassVar[str]
    family: ClassVar[Family]
    retryable: ClassVar[bool] = False

    def __init__(
        self, message: str, *, param: str | None = None, retry_after: int | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after


class InvalidRequest(CalotypeError):
    """The request is wrong as it stands."""

    code = "invalid_request"
    family = "invalid_request_error"


class MissingField(InvalidRequest):
    """A required field is absent or empty."""

    code = "missing_field"


class InvalidParameter(InvalidRequest):
    """A field has a value that the model does not take."""

    code = "invalid_parameter"


class UnsupportedParameter(InvalidRequest):
    """The model declares no such field."""

    code = "unsupported_parameter"


class UnsupportedResponseFormat(InvalidRequest):
    """Only ``response_format: "url"`` exists."""

    code = "unsupported_response_format"


class UnknownModel(InvalidRequest):
    """The request names a model that is not in the catalog."""

    code = "unknown_model"


class UnknownChannel(InvalidRequest):
    """The request pins a channel that does not serve the model."""

    code = "unknown_channel"


class TooManyReferences(InvalidRequest):
    """More reference images than the model takes."""

    code = "too_many_references"


class ReferenceTooLarge(InvalidRequest):
    """A reference image is over the limit in bytes or pixels."""

    code = "reference_too_large"


class UnsupportedReferenceType(InvalidRequest):
    """A reference is no image of a type that the model takes."""

    code = "unsupported_reference_type"


class MalformedBody(InvalidRequest):
    """The body cannot be parsed."""

    code = "malformed_body"


class UnsupportedMediaType(InvalidRequest):
    """The body's content type is neither JSON nor a multipart form."""

    code = "unsupported_media_type"


class BodyTooLarge(InvalidRequest):
    """The body is over the limit."""

    code = "body_too_large"


class HeadTooLarge(InvalidRequest):
    """The request's first line and headers are over the limit."""

    code = "head_too_large"


class RequestTimeout(InvalidRequest):
    """The request came too slowly."""

    code = "request_timeout"
    retryable = True


class RangeNotSatisfiable(InvalidRequest):
    """The range asked for lies outside the image.

    Args:
        message: see ``CalotypeError``.
        size: bytes of the whole image.

    """

    code = "range_not_satisfiable"

    def __init__(self, message: str, *, size: int) -> None:
        super().__init__(message)
        self.size = size


class IdempotencyConflict(InvalidRequest):
    """The ``Idempotency-Key`` was used with another request."""

    code = "idempotency_conflict"


class TaskNotFinal(InvalidRequest):
    """The task is still being developed."""

    code = "task_not_final"


class AuthenticationError(CalotypeError):
    """The caller is not known."""

    code = "authentication_failed"
    family = "authentication_error"


class MissingKey(AuthenticationError):
    """No API key was sent."""

    code = "missing_api_key"


class InvalidKey(AuthenticationError):
    """The API key is malformed, unknown, expired or revoked."""

    code = "invalid_api_key"


class BillingError(CalotypeError):
    """The account cannot pay."""

    code = "billing_failed"
    family = "billing_error"


class InsufficientBalance(BillingError):
    """The price of the task is more than what is available."""

    code = "insufficient_balance"


class SpendLimitReached(BillingError):
    """The API key may not spend so much in this UTC day or month."""

    code = "spend_limit_reached"


class TooMany(CalotypeError):
    """More than somebody may have for now."""

    code = "too_many"
    family = "rate_limit_error"
    retryable = True


class RateLimitReached(TooMany):
    """The API key or its account has submitted as many tasks as it may for now.

    ``account_left`` is what is left of the account's rate, where that is what was reached.
    """

    code = "rate_limit_reached"
    account_left: "Allowance | None" = None


class QueueFull(TooMany):
    """The API key or its account has as many unfinished tasks as it may."""

    code = "queue_full"


class PermissionDenied(CalotypeError):
    """The caller is known but may not do this."""

    code = "permission_denied"
    family = "permission_error"


class InvalidSignature(PermissionDenied):
    """A signed URL was changed or was never ours."""

    code = "invalid_signature"


class ExpiredUrl(PermissionDenied):
    """A signed URL is past its time."""

    code = "url_expired"


class ModelNotAllowed(PermissionDenied):
    """The API key may not use the model."""

    code = "model_not_allowed"


class ChannelNotAllowed(PermissionDenied):
    """The API key may not use the channel, or any that serves the model."""

    code = "channel_not_allowed"


class NotFound(CalotypeError):
    """There is no such thing, or it belongs to someone else."""

    code = "not_found"
    family = "not_found_error"


class UnknownRoute(NotFound):
    """No route has this path."""

    code = "unknown_route"


class MethodNotAllowed(NotFound):
    """The path exists, but not with this method.

    Args:
        message: see ``CalotypeError``.
        allow: the methods that exist, for the ``Allow`` header.

    """

    code = "method_not_allowed"

    def __init__(self, message: str, *, allow: str) -> None:
        super().__init__(message)
        self.allow = allow


class TaskNotFound(NotFound):
    """No task of this account has the id."""

    code = "task_not_found"


class AssetNotFound(NotFound):
    """No stored image has the id."""

    code = "asset_not_found"


class FileNotFound(NotFound):
    """No file of this account has the id."""

    code = "file_not_found"


class BrandNotFound(NotFound):
    """No brand of the catalog has the name."""

    code = "brand_not_found"


class CallbackNotFound(NotFound):
    """No channel of this name asks for callbacks."""

    code = "callback_not_found"


class WebhookNotFound(NotFound):
    """The task has no webhook."""

    code = "webhook_not_found"


class ModelNotFound(NotFound):
    """No model of the catalog has the id (as part of a path)."""

    code = "model_not_found"


class ServerFault(CalotypeError):
    """The fault is ours."""

    code = "server_fault"
    family = "server_error"
    retryable = True


class InternalError(ServerFault):
    """Something broke that should not have."""

    code = "internal_error"


class Unavailable(ServerFault):
    """A part we need does not answer right now."""

    code = "service_unavailable"


class Failure(msgspec.Struct, frozen=True):
    """Why a task ended in ``fail``: the ``error`` object of the task."""

    code: str
    message: str
    type: Family
    retryable: bool = False


FAILURES: dict[str, tuple[Family, bool]] = {
    "reference_fetch_failed": ("invalid_request_error", True),
    "reference_gone": ("invalid_request_error", False),
    "reference_too_large": ("invalid_request_error", False),
    "unsupported_reference_type": ("invalid_request_error", False),
    "content_policy_violation": ("invalid_request_error", False),
    "upstream_rejected": ("upstream_error", False),
    "upstream_failed": ("upstream_error", True),
    "upstream_rate_limited": ("upstream_error", True),
    "upstream_unavailable": ("upstream_error", True),
    "upstream_malformed_response": ("upstream_error", True),
    "upstream_outcome_unknown": ("upstream_error", True),
    "local_out_of_memory": ("upstream_error", False),
    "deadline_exceeded": ("upstream_error", True),
    "cancelled": ("upstream_error", True),
    "no_channel_available": ("server_error", True),
    "internal_error": ("server_error", True),
}
"""Code of a failed task → its family, and whether sending the request anew can help."""


def failure(code: str, message: str) -> Failure:
    """The ``error`` object for a code of ``FAILURES``; what no database can hold is left out."""
    family, retryable = FAILURES[code]
    sound = message.replace("\0", "").encode(errors="replace").decode()
    return Failure(code=code, message=sound, type=family, retryable=retryable)


CANCELLED: Final = failure("cancelled", "The task was cancelled.")
"""How every task ends whose client had asked for it, whatever else became of it."""
