"""The door for agents as OpenAPI has it: one operation, whose messages the protocol defines."""

from typing import Any, Final

from calotype.api.openapi.shapes import Schema, record, reference, text

ABOUT: Final = (
    "The [Model Context Protocol](https://modelcontextprotocol.io) over streamable HTTP: one "
    "message of JSON-RPC in, its answer out. There are no sessions, so each request stands for "
    "itself and brings its key. The tools make, edit, read, cancel and list what the rest of this "
    "API does, for the key's owner. What is wrong with a message is answered as JSON-RPC has it, "
    "what is wrong with key, type or size in the one shape of this API."
)
_REFUSED: Final = {
    "400": "The message is no JSON, no message of the protocol, or of an unknown version.",
    "404": "There is no such method.",
}
_EXAMPLE: Final = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}


def schemas() -> dict[str, Schema]:
    """What goes in, and what comes out."""
    identity = {"description": "Of the request.", "type": ["string", "integer", "null"]}
    error = record(
        "What is wrong.",
        {"code": {"type": "integer"}, "message": text("For a person."), "data": {}},
        optional=("data",),
    )
    version = {"const": "2.0"}
    return {
        "RpcMessage": record(
            "A request, or without an `id` a notification.",
            {
                "jsonrpc": version,
                "id": {"type": ["string", "integer"]},
                "method": text("Such as `tools/call`."),
                "params": {"type": ["object", "null"]},
            },
            optional=("id", "params"),
        ),
        "RpcResult": record(
            "The answer to a request.",
            {"jsonrpc": version, "id": identity, "result": {"type": "object"}},
        ),
        "RpcEvent": record(
            "One event of a stream; the fields of its lines.",
            {
                "event": text("Always `message`."),
                "data": text(
                    "A message: the answer, or a notification before it.",
                    contentMediaType="application/json",
                ),
            },
            optional=("event",),
        ),
        "RpcError": record(
            "A message that is refused.", {"jsonrpc": version, "id": identity, "error": error}
        ),
    }


def with_messages(operation: dict[str, Any]) -> dict[str, Any]:
    """The operation with the answers that the protocol has besides those of this API."""
    headers = {"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}}
    either = {"oneOf": [reference("RpcResult"), reference("RpcError")]}
    answers: dict[str, Any] = {
        "200": {
            "description": "The answer; as a stream, where the caller takes one, with "
            "notifications of progress before it.",
            "headers": headers,
            "content": {
                "application/json": {"schema": either},
                "text/event-stream": {"schema": reference("RpcEvent")},
            },
        },
        "202": {"description": "A notification was taken.", "headers": headers},
    }
    for status, said in _REFUSED.items():
        content = {"application/json": {"schema": reference("RpcError")}}
        answers[status] = {"description": said, "headers": headers, "content": content}
    body = {"application/json": {"schema": reference("RpcMessage"), "example": _EXAMPLE}}
    return {
        **operation,
        "requestBody": {"required": True, "content": body},
        "responses": {**answers, **operation["responses"]},
    }
