"""Schemas of tasks, from acceptance to the finished image."""

from typing import Final, get_args

from calotype.api.openapi.errors import failure
from calotype.api.openapi.shapes import (
    MICRO,
    UNIX,
    Schema,
    choice,
    codes,
    constant,
    record,
    reference,
    text,
    whole,
)
from calotype.domain.errors import FAILURES, Family
from calotype.domain.task import BillingStatus, State

_STATES: Final[dict[str, str]] = {
    State.WAITING.value: "accepted and safe on disk, not yet scheduled",
    State.QUEUING.value: "handed to a worker's or the upstream's queue",
    State.GENERATING.value: "the upstream is at it",
    State.SUCCESS.value: "final, `result` holds the images",
    State.FAIL.value: "final, `error` says why; only cancelling too late is ever charged",
}
_BILLING: Final[dict[str, str]] = {
    BillingStatus.RESERVED.value: "the price is set aside",
    BillingStatus.COMMITTED.value: "the images were charged, or what cancelling costs",
    BillingStatus.RELEASED.value: "nothing was charged",
}
_TASK_ID: Final = "task_1k0v3m8a0qz4e"


def task_schemas() -> dict[str, Schema]:
    """The schemas by component name."""
    return {
        "TaskAccepted": _accepted(),
        "Task": _task(),
        "ReferenceChange": _reference_change(),
        "TaskRequest": _task_request(),
        "TaskResult": _task_result(),
        "ResultImage": _result_image(),
        "TaskError": _task_error(),
        "Billing": _billing(),
    }


def _hints() -> dict[str, Schema]:
    return {
        "recommended_poll_interval_ms": whole("Wait so long before looking again."),
        "eta_hint_seconds": whole("How long it may still take; a guess."),
    }


def _identity() -> dict[str, Schema]:
    return {
        "task_id": text("Id of the task.", examples=[_TASK_ID]),
        "object": constant("task", "Always `task`."),
        "model": text("Id of the model.", examples=["nano-banana-pro"]),
        "type": constant("image", "Always `image`."),
        "request_id": text("`X-Request-Id` of the submission."),
        "poll_url": text("Path to `GET` the task from.", examples=[f"/v1/tasks/{_TASK_ID}"]),
        "created_at": whole(f"{UNIX}."),
    }


def _accepted() -> Schema:
    schema = record(
        "A task that was accepted: it is on disk, and will come to an end.",
        {
            **_identity(),
            "state": choice(_STATES, "`waiting`, unless `Prefer` asked to wait for more."),
            **_hints(),
        },
        optional=tuple(_hints()),
    )
    schema["examples"] = [
        {
            "task_id": _TASK_ID,
            "object": "task",
            "model": "nano-banana-pro",
            "type": "image",
            "state": "waiting",
            "created_at": 1_760_000_000,
            "poll_url": f"/v1/tasks/{_TASK_ID}",
            "request_id": "req_5f1c0a7be2d94c3f8a6b1e07",
            "recommended_poll_interval_ms": 3500,
            "eta_hint_seconds": 30,
        }
    ]
    return schema


def _reference_change() -> Schema:
    image = {
        "width": whole("Pixels, as stored.", minimum=1),
        "height": whole("Pixels, as stored.", minimum=1),
        "content_type": text("Such as `image/png`."),
        "bytes": whole("Size of the file.", minimum=1),
    }
    return record(
        "A reference that was made smaller, or a file of another type, for an upstream.",
        {
            "index": whole("Which one of `image_input`; counts from 0."),
            "channel_id": whole("The channel whose upstream asked for it."),
            "from": record("As it came.", image),
            "to": record("As it was sent.", image),
            "reason": text("For people: what the upstream takes."),
        },
    )


def _task() -> Schema:
    schema = record(
        "A task as its owner sees it.",
        {
            **_identity(),
            "channel": record(
                "The channel that develops the task, as discovery shows it.",
                {
                    "id": whole("What `channel_id` pins."),
                    "name": text("For people.", examples=["Sandbox"]),
                    "slug": text("Short and stable.", examples=["sandbox"]),
                },
                optional=("name", "slug"),
            ),
            "state": choice(_STATES, "Only goes forward."),
            "progress": whole("Percent; never falls, 100 on success.", maximum=100),
            "last_event": whole("Number of the task's last event, for `since`."),
            "request": reference("TaskRequest"),
            "result": reference("TaskResult"),
            "error": reference("TaskError"),
            "billing": reference("Billing"),
            "metadata": {
                "type": "object",
                "additionalProperties": {"type": "string"},
                "description": "Your own words about the task; empty where there are none.",
            },
            "cancel_requested_at": whole(
                f"When it was cancelled; {UNIX}. Only where that could not be done at once."
            ),
            "partial_result": record(
                "Images that are stored already, of a task that asked for several and is not "
                "final; absent while there are none.",
                {"data": {"type": "array", "minItems": 1, "items": reference("ResultImage")}},
            ),
            "reference_changes": {
                "type": "array",
                "minItems": 1,
                "items": reference("ReferenceChange"),
                "description": "Copies of references that were made because an upstream does not "
                "take them as they are; absent while there are none.",
            },
            "webhook_delivery": reference("WebhookDelivery"),
            "updated_at": whole(f"{UNIX}."),
            "completed_at": whole(f"{UNIX}; only once the task is final."),
            "deleted_at": whole(f"When its images were deleted; {UNIX}. Absent otherwise."),
            "expires_at": whole(
                f"From then on its images are gone; {UNIX}. Absent before success, and where they "
                "are kept until they are deleted."
            ),
            **_hints(),
        },
        optional=(
            *("cancel_requested_at", "partial_result", "webhook_delivery", "completed_at"),
            *("deleted_at", "expires_at", "reference_changes", *_hints()),
        ),
    )
    empty = {"maxProperties": 0}
    schema["allOf"] = [
        _when(
            [State.SUCCESS],
            required=["completed_at"],
            progress={"const": 100},
            result={"required": ["created", "data"]},
            error=empty,
        ),
        _when(
            [State.FAIL],
            required=["completed_at"],
            result=empty,
            error={"required": ["code", "message", "type", "retryable"]},
        ),
        _when(
            [State.WAITING, State.QUEUING, State.GENERATING],
            required=list(_hints()),
            result=empty,
            error=empty,
        ),
    ]
    schema["examples"] = [_done()]
    return schema


def _when(states: list[State], *, required: list[str], **properties: Schema) -> Schema:
    """What holds of a task in one of these states."""
    chosen = {"properties": {"state": {"enum": [state.value for state in states]}}}
    return {"if": chosen, "then": {"required": required, "properties": properties}}


def _done() -> Schema:
    """A finished task, to see the fields by."""
    name = "asset_1k0v3m9d5b8qe.png"
    url = f"https://images.example.com/v1/assets/{name}?expires=1760090400&signature=3f9c…"
    return {
        "task_id": _TASK_ID,
        "object": "task",
        "request_id": "req_5f1c0a7be2d94c3f8a6b1e07",
        "model": "nano-banana-pro",
        "type": "image",
        "channel": {"id": 1, "name": "Sandbox", "slug": "sandbox"},
        "state": "success",
        "progress": 100,
        "request": {
            "model": "nano-banana-pro",
            "prompt": "A lighthouse at dusk",
            "n": 1,
            "response_format": "url",
            "aspect_ratio": "16:9",
            "resolution": "2K",
            "output_format": "png",
        },
        "result": {
            "created": 1_760_000_031,
            "data": [
                {
                    "url": url,
                    "expires_at": 1_760_090_400,
                    "width": 2752,
                    "height": 1536,
                    "content_type": "image/png",
                    "bytes": 6_291_456,
                }
            ],
        },
        "error": {},
        "billing": {
            "status": "committed",
            "reserve_amount_micro_usdc": 150_000,
            "actual_amount_micro_usdc": 150_000,
            "released_amount_micro_usdc": 0,
        },
        "metadata": {"order": "7391"},
        "poll_url": f"/v1/tasks/{_TASK_ID}",
        "created_at": 1_760_000_000,
        "last_event": 4,
        "updated_at": 1_760_000_031,
        "completed_at": 1_760_000_031,
    }


def _task_request() -> Schema:
    """Parameters differ by model, so they are not listed here."""
    return record(
        "The request as it was accepted, defaults filled in; beside these fields every parameter "
        "of the model that has a value.",
        {
            "model": text("Id of the model."),
            "prompt": text("As it was sent."),
            "n": whole("How many images.", minimum=1),
            "response_format": constant("url", "Always `url`."),
            "channel_id": whole("Where the client pinned one."),
            "callback_url": text("Where the client asked to be told of the end.", format="uri"),
            "deadline_seconds": whole("Where the client set one.", minimum=1),
            "image_input": {
                "type": "array",
                "items": {"type": ["string", "null"], "format": "uri"},
                "description": "References as URLs, in their order: as they were sent, `asset://` "
                "too; uploads carry a signed URL of ours, null once they are no longer stored.",
            },
        },
        optional=("channel_id", "callback_url", "deadline_seconds", "image_input"),
    )


def _task_result() -> Schema:
    return record(
        "Empty until the task succeeds.",
        {
            "created": whole(f"{UNIX}."),
            "data": {
                "type": "array",
                "minItems": 1,
                "items": reference("ResultImage"),
                "description": "The images that came, in the upstream's order; fewer than `n` "
                "where some were of no use, which are not charged.",
            },
        },
        optional=("created", "data"),
    )


def _result_image() -> Schema:
    schema = record(
        "One image.",
        {
            "url": text(
                "Signed link to the image; needs no key. Each read of the task gives a fresh one. "
                "Absent once the image is no longer stored.",
                format="uri",
            ),
            "expires_at": whole(f"Until when the link is good; {UNIX}."),
            "expired": {
                "type": "boolean",
                "const": True,
                "description": "The image is no longer stored; absent while it is.",
            },
            "width": whole("Pixels.", minimum=1),
            "height": whole("Pixels.", minimum=1),
            "content_type": text("`image/png`, `image/jpeg` or `image/webp`."),
            "bytes": whole("Size of the file."),
        },
        optional=("url", "expires_at", "expired", "width", "height", "content_type", "bytes"),
    )
    schema["oneOf"] = [{"required": ["url"]}, {"required": ["expired"]}]
    return schema


def _task_error() -> Schema:
    notes = {code: failure(code).cause for code in FAILURES}
    return record(
        "Empty unless the task failed.",
        {
            "code": codes(notes, "The precise cause."),
            "message": text("For a person."),
            "type": text("Family of the error.", enum=list(get_args(Family))),
            "retryable": {
                "type": "boolean",
                "description": "Whether the same request, submitted anew, may succeed.",
            },
        },
        optional=("code", "message", "type", "retryable"),
    )


def _billing() -> Schema:
    return record(
        "Money, in micro-USDC; once the task is final, reserve = actual + released.",
        {
            "status": choice(_BILLING, "Where the money stands."),
            "reserve_amount_micro_usdc": whole(f"Set aside at submission; {MICRO}."),
            "actual_amount_micro_usdc": whole(f"Charged; {MICRO}."),
            "released_amount_micro_usdc": whole(f"Given back; {MICRO}."),
        },
    )
