"""Answers: the one place where documents become bytes and errors become statuses."""

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from calotype.api.allowance import account_headers
from calotype.domain.errors import (
    CalotypeError,
    MethodNotAllowed,
    RangeNotSatisfiable,
    RateLimitReached,
)

Header = tuple[bytes, bytes]
Headers = tuple[Header, ...]

_encode = msgspec.json.Encoder().encode

SLUGS: Final = {
    400: "bad_request",
    401: "unauthorized",
    402: "payment_required",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    409: "conflict",
    413: "payload_too_large",
    415: "unsupported_media_type",
    416: "range_not_satisfiable",
    429: "rate_limited",
    431: "request_header_fields_too_large",
    500: "internal_error",
    502: "bad_gateway",
    503: "unavailable",
}
"""HTTP status → the ``error`` field."""

STATUSES: Final = {
    "missing_field": 400,
    "invalid_parameter": 400,
    "unsupported_parameter": 400,
    "unsupported_response_format": 400,
    "unknown_model": 400,
    "unknown_channel": 400,
    "too_many_references": 400,
    "reference_too_large": 413,
    "unsupported_reference_type": 400,
    "malformed_body": 400,
    "unsupported_media_type": 415,
    "body_too_large": 413,
    "head_too_large": 431,
    "request_timeout": 408,
    "range_not_satisfiable": 416,
    "idempotency_conflict": 409,
    "task_not_final": 409,
    "missing_api_key": 401,
    "invalid_api_key": 401,
    "insufficient_balance": 402,
    "spend_limit_reached": 402,
    "invalid_signature": 403,
    "url_expired": 403,
    "model_not_allowed": 403,
    "channel_not_allowed": 403,
    "unknown_route": 404,
    "method_not_allowed": 405,
    "task_not_found": 404,
    "asset_not_found": 404,
    "file_not_found": 404,
    "brand_not_found": 404,
    "callback_not_found": 404,
    "model_not_found": 404,
    "webhook_not_found": 404,
    "rate_limit_reached": 429,
    "queue_full": 429,
    "internal_error": 500,
    "service_unavailable": 503,
}
"""Code of an error → HTTP status; a test finds codes that have none."""

JSON: Final = (b"content-type", b"application/json")

GUARDS: Final = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
"""With every answer that says nothing else: no cache keeps it, no page is made of it, no address
that led to it goes on."""


class Answer(msgspec.Struct, frozen=True):
    """A finished response."""

    status: int
    body: bytes
    headers: Headers = (JSON,)
    """What answers of this kind have in common."""
    own: Headers = ()
    """What is this one's alone."""

    def response(self) -> Response:
        """The same for Starlette."""
        response = Response(self.body, self.status)
        response.raw_headers.extend((*self.headers, *self.own))
        return response


def guarded(headers: Headers) -> Headers:
    """The headers, and what guards an answer that says nothing else."""
    said = dict(headers)
    return (*headers, *[pair for pair in GUARDS if pair[0] not in said])


def whole(answer: Answer, headers: Iterable[Header]) -> Answer:
    """The answer with all its headers, these and its length."""
    length = (b"content-length", b"%d" % len(answer.body))
    return Answer(answer.status, answer.body, answer.headers, (*answer.own, length, *headers))


def lines(headers: Iterable[Header]) -> bytes:
    """Headers as they are sent; nothing in ours comes from outside unchecked."""
    return b"".join([b"%b: %b\r\n" % pair for pair in headers])


@lru_cache(maxsize=256)
def common_lines(headers: Headers) -> bytes:
    """The same of what answers of a kind have in common, with what guards them."""
    return lines(guarded(headers))


def json_answer(
    status: int, document: Any, *, headers: Iterable[Header] = (), own: Iterable[Header] = ()
) -> Answer:
    """A JSON answer."""
    return Answer(status, _encode(document), (JSON, *headers), tuple(own))


def cacheable(answer: Answer, *, max_age: int = 60) -> Answer:
    """The answer with an ETag, for every cache to keep ``max_age`` seconds without asking."""
    etag = b'"%s"' % hashlib.sha256(answer.body).hexdigest()[:32].encode()
    kept = (b"cache-control", b"public, max-age=%d" % max_age)
    return Answer(answer.status, answer.body, (*answer.headers, (b"etag", etag), kept))


def has_copy(request: Request, etag: str) -> bool:
    """Whether the client's copy is the one with this ETag (RFC 9110, 13.1.2)."""
    known = ",".join(request.headers.getlist("if-none-match")).split(",")
    return not {etag, "*"}.isdisjoint(tag.strip().removeprefix("W/") for tag in known)


def unless_known(request: Request, answer: Answer) -> Response:
    """A cacheable answer, or 304 when the client's copy is the same."""
    if not has_copy(request, dict(answer.headers)[b"etag"].decode()):
        return answer.response()
    kept = [(name, value) for name, value in answer.headers if name != b"content-type"]
    return Answer(304, b"", tuple(kept)).response()


def error_document(error: CalotypeError) -> dict[str, Any]:
    """An error in the contract's one shape."""
    document = {
        "error": SLUGS[STATUSES[error.code]],
        "message": error.message,
        "type": error.family,
        "code": error.code,
    }
    return document if error.param is None else {**document, "param": error.param}


def error_answer(error: CalotypeError, **additions: Any) -> Answer:
    """The answer that says so."""
    status = STATUSES[error.code]
    document = {**error_document(error), **additions}
    headers: list[tuple[bytes, bytes]] = []
    if error.retry_after is not None:
        headers.append((b"retry-after", str(error.retry_after).encode()))
    if status == 401:  # noqa: PLR2004 -- RFC 9110 wants the challenge with this status
        headers.append((b"www-authenticate", b'Bearer realm="calotype"'))
    if isinstance(error, RateLimitReached) and error.account_left is not None:
        headers += account_headers(error.account_left)
    if isinstance(error, MethodNotAllowed):
        headers.append((b"allow", error.allow.encode()))
    if isinstance(error, RangeNotSatisfiable):
        headers.append((b"content-range", b"bytes */%d" % error.size))
    return json_answer(status, document, own=headers)
