"""Schemas of what comes many at a time: a page of tasks, and a batch of requests."""

from calotype.api.batch import MAX_REQUESTS
from calotype.api.openapi.requests import JSON
from calotype.api.openapi.shapes import Schema, constant, record, reference, text
from calotype.services.submission import MAX_IDEMPOTENCY_KEY


def list_schemas() -> dict[str, Schema]:
    """The schemas by component name."""
    return {
        "TaskList": _task_list(),
        "BatchRequest": _batch_request(),
        "BatchEntry": _batch_entry(),
        "BatchAnswer": _batch_answer(),
        "BatchRefusal": record("One that was refused.", {"error": reference("BatchError")}),
    }


def _task_list() -> Schema:
    return record(
        "A page of tasks, newest first.",
        {
            "object": constant("list", "Always `list`."),
            "data": {
                "type": "array",
                "items": reference("Task"),
                "description": "Each as reading it gives it.",
            },
            "has_more": {"type": "boolean", "description": "Whether there is another page."},
            "next_cursor": {
                "type": ["string", "null"],
                "description": "`cursor` of the next page; null where there is none.",
            },
        },
    )


def _batch_request() -> Schema:
    schema = record(
        "Requests that are accepted or refused each on its own.",
        {
            "requests": {
                "type": "array",
                "minItems": 1,
                "maxItems": MAX_REQUESTS,
                "items": reference("BatchEntry"),
            }
        },
    )
    return {**schema, "additionalProperties": False}


def _batch_entry() -> Schema:
    """Loose: an entry that does not fit is refused in its place, and the rest is taken."""
    return {
        "type": "object",
        "description": f"The fields of a request for one task (`{JSON}`), and its own "
        "`idempotency_key`. References go by URL.",
        "properties": {
            "model": text("Id of the model."),
            "prompt": text("What the image shows."),
            "idempotency_key": {
                "type": ["string", "null"],
                "maxLength": MAX_IDEMPOTENCY_KEY,
                "description": "As the header `Idempotency-Key` of a single request.",
            },
        },
        "required": ["model", "prompt"],
    }


def _batch_answer() -> Schema:
    either = {"anyOf": [reference("TaskAccepted"), reference("BatchRefusal")]}
    return record(
        "What became of each request, in their order.",
        {
            "object": constant("list", "Always `list`."),
            "data": {
                "type": "array",
                "items": either,
                "description": "For each the task as after a single submission, or `error`: the "
                "body with which a single submission would have been refused, with `retry_after`.",
            },
        },
    )
