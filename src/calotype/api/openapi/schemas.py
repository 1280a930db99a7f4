"""What answers hold, as JSON Schema. Answers may grow: unknown fields are to be ignored."""

from collections.abc import Mapping
from typing import get_args

from calotype.api.batch import RETRY_AFTER
from calotype.api.openapi.errors import refusal
from calotype.api.openapi.events import event_schemas
from calotype.api.openapi.lists import list_schemas
from calotype.api.openapi.models import model_schemas
from calotype.api.openapi.shapes import MICRO, Schema, codes, constant, record, text, whole
from calotype.api.openapi.tasks import task_schemas
from calotype.api.openapi.webhooks import webhook_schemas
from calotype.api.render import SLUGS, STATUSES
from calotype.domain.errors import Family


def answer_schemas(entry: Mapping[str, object]) -> dict[str, Schema]:
    """Every schema of answers by its component name.

    Args:
        entry: a model as discovery shows it, for an example; may be empty.

    """
    return {
        "Error": _error(),
        "BatchError": _batch_error(),
        "NotReady": _not_ready(),
        **task_schemas(),
        **list_schemas(),
        **webhook_schemas(),
        **event_schemas(),
        **model_schemas(entry),
        "Balance": _balance(),
        "Health": _health(),
        "Readiness": _readiness(),
    }


def _error_fields() -> dict[str, Schema]:
    return {
        "error": text("Slug of the status.", enum=list(SLUGS.values())),
        "message": text("For a person: what is wrong, and what would be right."),
        "type": text("Family of the error.", enum=list(get_args(Family))),
        "code": codes({code: refusal(code).cause for code in STATUSES}, "The precise cause."),
        "param": text("The field at fault, where there is one."),
    }


def _error() -> Schema:
    schema = record(
        "The body of every answer that is not 2xx, whatever went wrong.",
        _error_fields(),
        optional=("param",),
    )
    schema["examples"] = [
        {
            "error": "bad_request",
            "message": "resolution '2K' does not go with aspect_ratio 'auto' for gpt-image-2; with "
            "it, resolution must be 1K.",
            "type": "invalid_request_error",
            "code": "invalid_parameter",
            "param": "resolution",
        }
    ]
    return schema


def _batch_error() -> Schema:
    after = whole("Seconds after which to try again, where that helps: what `Retry-After` says.")
    fields = {**_error_fields(), RETRY_AFTER: after}
    return record("Why one of a batch is refused.", fields, optional=("param", RETRY_AFTER))


def _not_ready() -> Schema:
    fields = {**_error_fields(), "checks": _checks()}
    return record("The error, and how each part is.", fields, optional=("param", "checks"))


def _balance() -> Schema:
    return record(
        "Credits, in micro-USDC.",
        {
            "balance_micro_usdc": whole(f"What the account owns; {MICRO}."),
            "reserved_micro_usdc": whole("Of that, promised to tasks that are not final."),
            "available_micro_usdc": whole("What new tasks can still be paid from."),
        },
        optional=("reserved_micro_usdc", "available_micro_usdc"),
    )


def _health() -> Schema:
    return record("The process answers.", {"status": constant("ok", "Always `ok`.")})


def _readiness() -> Schema:
    return record(
        "Every part works.", {"status": constant("ready", "Always `ready`."), "checks": _checks()}
    )


def _checks() -> Schema:
    return {
        "type": "object",
        "additionalProperties": {"type": "string"},
        "description": "Part → `ok`, or what is wrong with it.",
        "examples": [{"database": "ok", "assets": "ok", "queue": "ok"}],
    }
