"""How operations are written: what all of them have in common, and the errors they answer."""

from collections.abc import Sequence
from typing import Any, Final

from calotype.api.openapi.errors import refusal
from calotype.api.openapi.shapes import Schema, reference
from calotype.api.render import STATUSES

Operation = dict[str, Any]

KEY: Final = ("missing_api_key", "invalid_api_key")
BROKEN: Final = ("internal_error", "service_unavailable")
SUBMIT: Final = (
    "missing_field",
    "invalid_parameter",
    "unsupported_parameter",
    "unsupported_response_format",
    "unknown_model",
    "unknown_channel",
    "too_many_references",
    "unsupported_reference_type",
    "malformed_body",
    *KEY,
    "insufficient_balance",
    "spend_limit_reached",
    "model_not_allowed",
    "channel_not_allowed",
    "idempotency_conflict",
    "reference_too_large",
    "body_too_large",
    "unsupported_media_type",
    "rate_limit_reached",
    "queue_full",
    *BROKEN,
)
"""With what a submission is refused."""
RATE: Final = ("RateLimit-Policy", "RateLimit")
"""Headers of the answers to a submission, where its key or account has a rate."""
_TOO_MANY: Final = 429
_SAID: Final = {
    400: "The request is wrong as it stands.",
    401: "The caller is not known.",
    402: "The account cannot pay, or the key may not spend so much; `Retry-After` says when the "
    "key may again.",
    403: "The caller may not do this.",
    404: "There is no such thing.",
    405: "The path does not have this method; `Allow` names those it has.",
    409: "The request contradicts an earlier one, or comes too early.",
    413: "Something in the request is too large.",
    415: "The body is of a type that is not read.",
    416: "The range lies outside the image.",
    429: "Too many requests, or a quota is used up; `Retry-After` says when to come back.",
    500: "Something broke on our side.",
    503: "Not now; `Retry-After` says when to come back.",
}
_EXTRA_HEADERS: Final[dict[int, list[str]]] = {
    401: ["WWW-Authenticate"],
    402: ["Retry-After"],
    405: ["Allow"],
    416: ["Content-Range"],
    429: ["Retry-After", *RATE],
    503: ["Retry-After"],
}


def error_response(status: int, codes: Sequence[str], *, schema: str = "Error") -> Schema:
    """An answer in the one shape, with the codes that it may carry."""
    lines = [f"- `{code}`: {refusal(code).cause} {refusal(code).cure}" for code in codes]
    said = "\n".join([_SAID.get(status, "Refused."), "", *lines]).rstrip()
    headers = _EXTRA_HEADERS.get(status, ())
    answered = response(said, json=reference(schema), headers=headers)
    return {**answered, "x-codes": list(codes)}


def response(
    description: str, *, json: Schema | None = None, headers: Sequence[str] = ()
) -> Schema:
    """An answer, with the request's id and more headers."""
    names = [*headers, "X-Request-Id"]
    made: Schema = {
        "description": description,
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in names},
    }
    if json is not None:
        made["content"] = {"application/json": {"schema": json}}
    return made


def refusals(codes: Sequence[str], *, schema: str = "Error") -> dict[str, Schema]:
    """The error answers of an operation, by status; where a key is asked for, 429 is among them."""
    by_status: dict[int, list[str]] = {_TOO_MANY: []} if set(KEY) <= set(codes) else {}
    for code in codes:
        by_status.setdefault(STATUSES[code], []).append(code)
    return {
        str(status): error_response(status, by_status[status], schema=schema)
        for status in sorted(by_status)
    }


def operation(
    name: str,
    tag: str,
    summary: str,
    *,
    description: str,
    answers: dict[str, Schema],
    codes: Sequence[str],
    parameters: Sequence[Schema] = (),
) -> Operation:
    """An operation: its good answers as they are, the others by their codes.

    Where no key is among them, the operation is public.
    """
    made: Operation = {
        "operationId": name,
        "tags": [tag],
        "summary": summary,
        "description": description,
        "parameters": [*parameters, {"$ref": "#/components/parameters/X-Request-Id"}],
        "responses": {**answers, **refusals(codes)},
    }
    if not set(KEY) <= set(codes):
        made["security"] = []
    return made


def in_path(name: str, description: str, example: str) -> Schema:
    """A part of the path."""
    schema = {"type": "string", "examples": [example]}
    return {
        "name": name,
        "in": "path",
        "required": True,
        "description": description,
        "schema": schema,
    }


def in_query(name: str, description: str, **schema: Any) -> Schema:
    """A part of the query; a string unless the schema says otherwise."""
    found = {"type": "string", **schema}
    return {"name": name, "in": "query", "description": description, "schema": found}
