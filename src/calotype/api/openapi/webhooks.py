"""Webhooks: the operations that see to them, their schemas, and what receivers get."""

from typing import Any, Final

from calotype.api.openapi.operations import (
    BROKEN,
    KEY,
    Operation,
    in_path,
    operation,
    response,
)
from calotype.api.openapi.shapes import (
    UNIX,
    Schema,
    choice,
    constant,
    record,
    reference,
    text,
    whole,
)
from calotype.api.webhooks import DEFAULT_LIMIT, DEFAULT_OVERLAP_SECONDS, MAX_LIMIT
from calotype.domain.ids import word_pattern
from calotype.domain.webhooks import (
    EVENTS,
    MAX_OVERLAP_SECONDS,
    MAX_URL_BYTES,
    DeliveryState,
)
from calotype.store.webhooks import STORED

_STATES: Final[dict[str, str]] = {
    DeliveryState.WAITING.value: "the task is not final",
    DeliveryState.PENDING.value: "it is being sent, or will be again",
    DeliveryState.DELIVERED.value: "the receiver answered 2xx",
    DeliveryState.FAILED.value: "every try failed; it can be sent again",
    DeliveryState.DISABLED.value: "the receiver answered 410, so nothing is sent to its URL",
}
_TASK_ID: Final = "task_1k0v3m8a0qz4e"
_URL: Final = "https://example.com/hooks/calotype"
_TASK: Final = in_path("task_id", "The id from submission.", _TASK_ID)


def paths() -> dict[str, Schema]:
    """The operations by path and method."""
    return {
        "/v1/webhooks": {"get": _settings(), "put": _set_url()},
        "/v1/webhooks/rotate": {"post": _rotate()},
        "/v1/webhooks/deliveries": {"get": _deliveries()},
        "/v1/tasks/{task_id}/webhook": {"get": _delivery()},
        "/v1/tasks/{task_id}/webhook/redeliver": {"post": _redeliver()},
    }


def events() -> dict[str, Schema]:
    """What is sent to receivers, by event."""
    said = {"task.success": "A task succeeded.", "task.fail": "A task failed."}
    return {event: {"post": _event(event, said[event])} for event in EVENTS.values()}


def webhook_schemas() -> dict[str, Schema]:
    """The schemas by component name."""
    return {
        "WebhookSettings": _webhook_settings(),
        "WebhookDelivery": _webhook_delivery(),
        "WebhookDeliveryEntry": _entry(),
        "WebhookDeliveryRecord": _full(),
        "WebhookDeliveryList": _list(),
        "WebhookEvent": _webhook_event(),
    }


def _answer(said: str, schema: str) -> Schema:
    return response(said, json=reference(schema), headers=["Cache-Control"])


def _settings() -> Operation:
    return operation(
        "getWebhookSettings",
        "Webhooks",
        "Read the webhook settings",
        description="The account's URL, the secrets that sign now, and the URLs that are switched "
        "off. A secret is the account's own: whoever has it can pretend to be this server.",
        answers={"200": _answer("The settings.", "WebhookSettings")},
        codes=(*KEY, *BROKEN),
    )


def _set_url() -> Operation:
    made = operation(
        "setWebhookUrl",
        "Webhooks",
        "Set the account's webhook URL",
        description="Tasks that end from now on without a `callback_url` of their own are told "
        "of there; null tells nobody. It has to be `http` or `https` with a public host, without "
        "a user name. A URL that a receiver switched off by 410 is switched on by it.",
        answers={"200": _answer("The settings as they are now.", "WebhookSettings")},
        codes=(
            *("missing_field", "invalid_parameter", "malformed_body", "body_too_large"),
            *KEY,
            *BROKEN,
        ),
    )
    url: Schema = {
        "type": ["string", "null"],
        "format": "uri",
        "maxLength": MAX_URL_BYTES,
        "description": "Where to tell; null for nowhere.",
    }
    return {**made, "requestBody": _body({"url": url}, example={"url": _URL}, required=True)}


def _rotate() -> Operation:
    made = operation(
        "rotateWebhookSecret",
        "Webhooks",
        "Make a new webhook secret",
        description="The secret before signs beside it for `overlap_seconds`; one before that no "
        "longer does. Give receivers the new secret within that time. `Idempotency-Key` is "
        "refused: `GET /v1/webhooks` shows whether a rotation came through.",
        answers={"200": _answer("The settings, with both secrets.", "WebhookSettings")},
        codes=("invalid_parameter", "malformed_body", "body_too_large", *KEY, *BROKEN),
    )
    overlap = whole(
        "How long the old secret signs, too.",
        maximum=MAX_OVERLAP_SECONDS,
        default=DEFAULT_OVERLAP_SECONDS,
    )
    example = {"overlap_seconds": DEFAULT_OVERLAP_SECONDS}
    body = _body({"overlap_seconds": {**overlap, "type": ["integer", "null"]}}, example=example)
    return {**made, "requestBody": body}


def _body(
    properties: dict[str, Schema], *, example: dict[str, Any], required: bool = False
) -> Schema:
    schema: Schema = {
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "examples": [example],
    }
    if required:
        schema["required"] = list(properties)
    return {"required": required, "content": {"application/json": {"schema": schema}}}


def _deliveries() -> Operation:
    return operation(
        "listWebhookDeliveries",
        "Webhooks",
        "List deliveries",
        description="The account's deliveries, newest first, each without its history.",
        answers={"200": _answer("A page of them.", "WebhookDeliveryList")},
        codes=("invalid_parameter", *KEY, *BROKEN),
        parameters=[
            {
                "name": "state",
                "in": "query",
                "description": "Only those in this state.",
                "schema": {"type": "string", "enum": list(STORED)},
            },
            {
                "name": "limit",
                "in": "query",
                "description": "How many at most.",
                "schema": {
                    "type": "integer",
                    "minimum": 1,
                    "maximum": MAX_LIMIT,
                    "default": DEFAULT_LIMIT,
                },
            },
            {
                "name": "cursor",
                "in": "query",
                "description": "The `next_cursor` of the page before.",
                "schema": {"type": "string", "pattern": word_pattern("task")},
            },
        ],
    )


def _delivery() -> Operation:
    return operation(
        "getWebhookDelivery",
        "Webhooks",
        "Read a task's delivery",
        description="How the task's webhook fares, and what came of each try.",
        answers={"200": _answer("The delivery.", "WebhookDeliveryRecord")},
        codes=(*KEY, "task_not_found", "webhook_not_found", *BROKEN),
        parameters=[_TASK],
    )


def _redeliver() -> Operation:
    return operation(
        "redeliverWebhook",
        "Webhooks",
        "Send a webhook again",
        description="Begins a new round of tries at once, whatever came of the last one. It goes "
        "to the task's `callback_url`, else to the account's URL as it is now, under the same "
        "`webhook-id`.",
        answers={"202": _answer("It will be sent.", "WebhookDeliveryRecord")},
        codes=(*KEY, "task_not_found", "webhook_not_found", *BROKEN),
        parameters=[_TASK],
    )


def _event(event: str, said: str) -> Operation:
    headers = {
        "webhook-id": "The same in every try, so that what came twice is known.",
        "webhook-timestamp": f"When this try was made; {UNIX}.",
        "webhook-signature": "`v1,` and base64, one for each secret that signs, separated by "
        "spaces: HMAC-SHA256 over id, timestamp and body, joined by full stops.",
    }
    return {
        "operationId": f"on{event.partition('.')[2].title()}",
        "summary": said,
        "description": "Sent to `callback_url` or the account's URL, by the rules of Standard "
        "Webhooks. Anything but a 2xx within 20 seconds is tried again, for about three days.",
        "security": [],
        "parameters": [
            {
                "name": name,
                "in": "header",
                "required": True,
                "description": meaning,
                "schema": {"type": "string"},
            }
            for name, meaning in headers.items()
        ],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": reference("WebhookEvent")}},
        },
        "responses": {
            "2XX": {"description": "Taken."},
            "410": {"description": "Nothing more is to be sent to this URL."},
            "default": {"description": "Not taken: it is sent again."},
        },
    }


def _webhook_settings() -> Schema:
    secret = record(
        "A secret that signs.",
        {
            "secret": text("`whsec_` and base64, as the libraries of Standard Webhooks take it."),
            "created_at": whole(f"{UNIX}."),
            "expires_at": _maybe(f"Until when it signs; {UNIX}. Null for the newest."),
        },
    )
    return record(
        "What the account has said of its webhooks.",
        {
            "object": constant("webhook_settings", "Always `webhook_settings`."),
            "url": {
                "type": ["string", "null"],
                "description": "For tasks without a `callback_url` of their own.",
            },
            "secrets": {
                "type": "array",
                "minItems": 1,
                "items": secret,
                "description": "The newest first; two while the older one still signs.",
            },
            "disabled_urls": {
                "type": "array",
                "items": {"type": "string"},
                "description": "To these nothing is sent any more, since a receiver answered 410.",
            },
        },
    )


def _standing() -> dict[str, Schema]:
    return {
        "state": choice(_STATES, "Where it stands."),
        "attempts": whole("Tries that were begun."),
        "last_status": _maybe("HTTP status of the last try; null before there was an answer."),
    }


def _webhook_delivery() -> Schema:
    return record("How the webhook fares; only where there is one.", _standing())


def _entry_fields() -> dict[str, Schema]:
    return {
        "object": constant("webhook_delivery", "Always `webhook_delivery`."),
        "task_id": text("Id of the task.", examples=[_TASK_ID]),
        "webhook_id": text("The `webhook-id` under which it is sent."),
        "event": {
            "type": ["string", "null"],
            "enum": [*EVENTS.values(), None],
            "description": "What it tells of; null while the task is not final.",
        },
        "url": text("Where it is sent."),
        **_standing(),
        "next_attempt_at": _maybe(
            f"When it is tried next, while pending and not being sent; {UNIX}."
        ),
        "created_at": _maybe(f"When the task ended; {UNIX}."),
    }


def _entry() -> Schema:
    return record("A delivery.", _entry_fields())


def _full() -> Schema:
    tried = record(
        "A try.",
        {
            "at": whole(f"{UNIX}."),
            "milliseconds": whole("How long it took."),
            "status": _maybe("HTTP status; null where there was no answer."),
            "error": {"type": ["string", "null"], "description": "What was wrong, for a person."},
            "reply": {
                "type": ["string", "null"],
                "description": "How the answer's body begins, at most 500 characters.",
            },
        },
    )
    history = {
        "type": "array",
        "items": tried,
        "description": "The tries that came to an end, oldest first, the last 100.",
    }
    return record("A delivery with its history.", {**_entry_fields(), "history": history})


def _list() -> Schema:
    return record(
        "A page of deliveries.",
        {
            "object": constant("list", "Always `list`."),
            "data": {"type": "array", "items": reference("WebhookDeliveryEntry")},
            "has_more": {"type": "boolean", "description": "Whether there is another page."},
            "next_cursor": {
                "type": ["string", "null"],
                "description": "Send it as `cursor` for the next page.",
            },
        },
    )


def _webhook_event() -> Schema:
    return {
        "description": "The task as `GET /v1/tasks/{task_id}` gives it, and what it tells of.",
        "allOf": [
            reference("Task"),
            record(
                "What makes it an event.",
                {"event": text("What happened.", enum=list(EVENTS.values()))},
            ),
        ],
    }


def _maybe(description: str) -> Schema:
    return {"type": ["integer", "null"], "minimum": 0, "description": description}
