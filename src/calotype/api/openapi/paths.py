"""Every route, as OpenAPI operations: what goes in, and every answer that can come out."""

from typing import Any, Final

from calotype.api.openapi import agents
from calotype.api.openapi.operations import BROKEN as _BROKEN
from calotype.api.openapi.operations import KEY as _KEY
from calotype.api.openapi.operations import RATE, Operation, error_response
from calotype.api.openapi.operations import SUBMIT as _SUBMIT
from calotype.api.openapi.operations import in_path as _in_path
from calotype.api.openapi.operations import in_query as _in_query
from calotype.api.openapi.operations import operation as _operation
from calotype.api.openapi.operations import response as _response
from calotype.api.openapi.requests import FORM, JSON, REFERENCE_TYPES, TEXT
from calotype.api.openapi.shapes import Schema, reference
from calotype.api.render import STATUSES
from calotype.api.streams import EVENT_CURSOR, EVENT_NUMBER
from calotype.api.task_list import DEFAULT_LIMIT, MAX_LIMIT, MAX_SINCE
from calotype.api.waiting import MAX_WAIT
from calotype.domain.ids import word_pattern
from calotype.domain.task import State
from calotype.services.thumbnails import WIDTHS

_ASSET: Final = (
    "invalid_signature",
    "url_expired",
    "asset_not_found",
    "range_not_satisfiable",
    "invalid_parameter",
    *_BROKEN,
)
_EVENTS: Final = (
    "Each is named `task.` and the state, and its data is JSON: `task_id`, `event` (its number in "
    "the task), `state`, `progress`, `at`, and with the last one `task`, as reading it gives it. "
    "A comment comes every 15 seconds when there is nothing else."
)
_CACHED: Final = ("ETag", "Cache-Control")


def paths(examples: dict[str, Any]) -> dict[str, Schema]:
    """The operations by path and method.

    Args:
        examples: requests to show at submission, as OpenAPI's example objects by name.

    """
    return {
        "/v1/images/generations": {"post": _submit(examples)},
        "/v1/images/generations/batch": {"post": _batch(examples)},
        "/v1/tasks": {"get": _tasks()},
        "/v1/tasks/{task_id}": {"get": _task(), "delete": _delete()},
        "/v1/tasks/{task_id}/cancel": {"post": _cancel()},
        "/v1/tasks/{task_id}/events": {"get": _task_events()},
        "/v1/events": {"get": _events()},
        "/v1/models": {"get": _models()},
        "/v1/models/{model_id}": {"get": _model()},
        "/v1/models/brands/{brand}/image": {"get": _brand()},
        "/v1/credits/balance": {"get": _balance()},
        "/v1/assets/{name}": {"get": _asset()},
        "/v1/callbacks/{channel}": {"post": _callback()},
        "/mcp": {"post": _agents()},
        "/healthz": {"get": _health()},
        "/readyz": {"get": _ready()},
        "/openapi.json": {"get": _openapi()},
        "/docs": {"get": _docs()},
        "/llms.txt": {"get": _llms()},
    }


_IF_NONE_MATCH: Final[Schema] = {"$ref": "#/components/parameters/If-None-Match"}


def _known() -> dict[str, Schema]:
    return {"304": _response("The copy with this `ETag` is still good.", headers=_CACHED)}


def _submit(examples: dict[str, Any]) -> Operation:
    accepted = _response(
        "Accepted: the task is on disk and its price is set aside.",
        json=reference("TaskAccepted"),
        headers=("Location", "Preference-Applied", *RATE),
    )
    accepted["links"] = {
        "task": {
            "operationId": "getTask",
            "parameters": {"task_id": "$response.body#/task_id"},
            "description": "The task, until it is final.",
        },
        "events": {
            "operationId": "streamTask",
            "parameters": {"task_id": "$response.body#/task_id"},
            "description": "What happens to it, as it happens.",
        },
    }
    operation = _operation(
        "createGeneration",
        "Images",
        "Submit an image request",
        description="Creates a task and answers at once; the image is never in this answer. Which "
        "fields there are depends on the model: a field that it does not declare is refused, and "
        "nothing that was asked for is dropped or changed in silence.\n\n"
        "JSON and form mean the same. A form may carry reference images as files, and its numbers "
        "and booleans are text. In JSON, null counts as absent.\n\n"
        "With an `Idempotency-Key`, sending the same request again is safe: it gives the same "
        "task, and is not charged again.",
        answers={"202": accepted},
        codes=_SUBMIT,
        parameters=[
            {"$ref": "#/components/parameters/Idempotency-Key"},
            {
                "name": "Prefer",
                "in": "header",
                "description": "`wait=N`: answer when the task is final, or after N seconds (at "
                "most 60), with the state that it has by then.",
                "schema": {"type": "string", "examples": ["wait=30"]},
            },
        ],
    )
    files = {"contentType": REFERENCE_TYPES}
    operation["requestBody"] = {
        "required": True,
        "content": {
            "application/json": {"schema": reference(JSON), "examples": examples},
            "multipart/form-data": {
                "schema": reference(FORM),
                "encoding": {"image": files, "image[]": files},
            },
        },
    }
    return operation


def _batch(examples: dict[str, Any]) -> Operation:
    operation = _operation(
        "createGenerations",
        "Images",
        "Submit many image requests",
        description="Up to 100 requests in one body and one transaction, each accepted or refused "
        "on its own: `data` has their tasks or errors in the order of the requests. References go "
        "by URL.\n\n"
        "Idempotency goes by the `idempotency_key` of each request; the header is refused.",
        answers={
            "202": _response("Judged, one by one.", json=reference("BatchAnswer"), headers=RATE)
        },
        codes=(
            *("missing_field", "invalid_parameter", "unsupported_parameter", "malformed_body"),
            *(*_KEY, "body_too_large", "unsupported_media_type", *_BROKEN),
        ),
    )
    requests = [
        {**example["value"], "idempotency_key": f"page-{place}"}
        for place, example in enumerate(examples.values(), start=1)
    ]
    shown = {"pages": {"summary": "Each with a key of its own", "value": {"requests": requests}}}
    content: Schema = {"schema": reference("BatchRequest")}
    if requests:
        content["examples"] = shown
    operation["requestBody"] = {"required": True, "content": {"application/json": content}}
    return operation


def _tasks() -> Operation:
    return _operation(
        "listTasks",
        "Tasks",
        "List and find tasks",
        description="The account's tasks, newest first, in pages. Filters narrow it down together. "
        "Beside those below, `metadata.<key>=<value>` finds the tasks that carry this pair, and "
        "may come for several keys.\n\n"
        "With `next_cursor` as `cursor`, and the filters as before, the next page follows: each "
        "task is shown once, whatever is submitted meanwhile.",
        answers={
            "200": _response("A page.", json=reference("TaskList"), headers=["Cache-Control"])
        },
        codes=("invalid_parameter", "unsupported_parameter", *_KEY, *_BROKEN),
        parameters=[
            _in_query("state", "In this state; any case.", enum=[each.value for each in State]),
            _in_query("model", "Of this model.", pattern=TEXT, examples=["nano-banana-pro"]),
            _in_query(
                "since",
                "Submitted at this time or later; Unix seconds.",
                type="integer",
                minimum=0,
                maximum=MAX_SINCE,
            ),
            _in_query(
                "limit",
                "Tasks in a page.",
                type="integer",
                minimum=1,
                maximum=MAX_LIMIT,
                default=DEFAULT_LIMIT,
            ),
            _in_query(
                "cursor", "The `next_cursor` of the page before.", pattern=word_pattern("page")
            ),
        ],
    )


def _task() -> Operation:
    return _operation(
        "getTask",
        "Tasks",
        "Read a task",
        description="Only its owner sees a task. Read it until `state` is `success` or `fail`, "
        "each time after `recommended_poll_interval_ms`; then `result.data[].url` has the images, "
        "or `error` says why there are none.\n\n"
        "With `wait`, the answer comes when something has happened to the task, or after so many "
        "seconds; a final task is answered at once.",
        answers={"200": _response("The task.", json=reference("Task"), headers=["Cache-Control"])},
        codes=("invalid_parameter", *_KEY, "task_not_found", *_BROKEN),
        parameters=[
            _in_path("task_id", "The id from submission.", "task_1k0v3m8a0qz4e"),
            {
                "name": "wait",
                "in": "query",
                "description": "Seconds to wait at most.",
                "schema": {"type": "integer", "minimum": 0, "maximum": MAX_WAIT, "default": 0},
            },
            {
                "name": "since",
                "in": "query",
                "description": "The `last_event` that you know: only a later one ends the wait. "
                "Left out, it is the task's last one now.",
                "schema": {"type": "integer", "minimum": 0, "maximum": 10**9},
            },
        ],
    )


def _delete() -> Operation:
    return _operation(
        "deleteTask",
        "Tasks",
        "Delete a task's images",
        description="Its results and its references are removed for good, and their URLs answer "
        "404 at once. The task itself stays, with what was asked for and what was paid: it gets "
        "`deleted_at`, and its images are told of without a `url`.\n\nOnly a final task can be "
        "deleted; cancel another one first. Safe to repeat.",
        answers={"204": _response("The images are gone.")},
        codes=(*_KEY, "task_not_found", "task_not_final", *_BROKEN),
        parameters=[_in_path("task_id", "The id from submission.", "task_1k0v3m8a0qz4e")],
    )


def _cancel() -> Operation:
    return _operation(
        "cancelTask",
        "Tasks",
        "Cancel a task",
        description="What was not sent to an upstream yet ends at once, as `fail` with the code "
        "`cancelled`, and costs nothing. Anything else gets `cancel_requested_at`: nothing more is "
        "sent, the upstream is asked to stop where it can be, and the task ends with the code "
        "`cancelled` once it is known what became of it. Cancelled while `waiting` or `queuing` it "
        "costs nothing whatever the upstream does; while `generating` it costs what the "
        "model's `capabilities.cancellation` says when the upstream finished all the same, and "
        "nothing otherwise.\n\nSafe to repeat. A final task stays as it is: a success stays one. "
        "There is no body; one that is sent means nothing.",
        answers={"200": _response("The task as it is now.", json=reference("Task"))},
        codes=(*_KEY, "task_not_found", *_BROKEN),
        parameters=[_in_path("task_id", "The id from submission.", "task_1k0v3m8a0qz4e")],
    )


def _task_events() -> Operation:
    return _operation(
        "streamTask",
        "Tasks",
        "Follow a task",
        description="Server-sent events, from the task's first to its last, after which the "
        f"stream ends. {_EVENTS} An event's `id` is its number.",
        answers={"200": _stream()},
        codes=("invalid_parameter", *_KEY, "task_not_found", *_BROKEN),
        parameters=[
            _in_path("task_id", "The id from submission.", "task_1k0v3m8a0qz4e"),
            *_last_event(EVENT_NUMBER),
        ],
    )


def _events() -> Operation:
    return _operation(
        "streamTasks",
        "Tasks",
        "Follow all tasks of the account",
        description="Server-sent events of every task of the key's account, from now on, or "
        f"from where an earlier stream ended. {_EVENTS}",
        answers={"200": _stream()},
        codes=("invalid_parameter", *_KEY, *_BROKEN),
        parameters=_last_event(EVENT_CURSOR),
    )


def _last_event(form: str) -> list[Schema]:
    schema = {"type": "string", "pattern": f"^{form}$"}
    return [
        {
            "name": "Last-Event-ID",
            "in": "header",
            "description": "The `id` of the last event that you have: the stream goes on after it.",
            "schema": schema,
        },
        {
            "name": "last_event_id",
            "in": "query",
            "description": "The same, for clients that cannot send the header; which goes first.",
            "schema": schema,
        },
    ]


def _stream() -> Schema:
    response = _response("The events.", headers=["Cache-Control"])
    return {**response, "content": {"text/event-stream": {"schema": reference("TaskEvent")}}}


def _models() -> Operation:
    listed = _response("The models.", json=reference("ModelList"), headers=_CACHED)
    return _operation(
        "listModels",
        "Models",
        "List the models",
        description="Every model with its parameters, limits, prices and channels: the same "
        "entries that requests are validated and charged by. Public and cacheable.",
        answers={"200": listed, **_known()},
        codes=("internal_error",),
        parameters=[_IF_NONE_MATCH],
    )


def _model() -> Operation:
    return _operation(
        "getModel",
        "Models",
        "Read one model",
        description="One entry of the list. Public and cacheable.",
        answers={
            "200": _response("The model.", json=reference("Model"), headers=_CACHED),
            **_known(),
        },
        codes=("model_not_found", "internal_error"),
        parameters=[_in_path("model_id", "Id of the model.", "nano-banana-pro"), _IF_NONE_MATCH],
    )


def _brand() -> Operation:
    mark = _response("The mark, as SVG.", headers=_CACHED)
    mark["content"] = {"image/svg+xml": {"schema": {"type": "string"}}}
    return _operation(
        "getBrandImage",
        "Models",
        "Read a brand's mark",
        description="What a model's `brand_image_url` names. Public and cacheable.",
        answers={"200": mark, **_known()},
        codes=("brand_not_found", "internal_error"),
        parameters=[_in_path("brand", "A model's `brand_key`.", "google"), _IF_NONE_MATCH],
    )


def _balance() -> Operation:
    return _operation(
        "getBalance",
        "Account",
        "Read the balance",
        description="The credits of the key's owner.",
        answers={"200": _response("The credits.", json=reference("Balance"))},
        codes=(*_KEY, *_BROKEN),
    )


def _asset() -> Operation:
    headers = ("ETag", "Cache-Control", "Content-Disposition", "Accept-Ranges")
    whole = _response("The image.", headers=headers)
    part = _response("The part that `Range` asked for.", headers=[*headers, "Content-Range"])
    elsewhere = _response(
        "The image is in a cloud store, which sends it by the URL in `Location`.",
        headers=("Location", "Cache-Control"),
    )
    file = {"schema": {"type": "string", "format": "binary"}}
    for response in (whole, part):
        response["content"] = dict.fromkeys(("image/png", "image/jpeg", "image/webp"), file)
    text = {"type": "string"}
    return _operation(
        "getAsset",
        "Images",
        "Download an image",
        description="What a task's `result.data[].url` names; take that URL as it is. It is "
        "signed, so it needs no key, and expires; each read of the task gives a fresh one.",
        answers={"200": whole, "206": part, "302": elsewhere, **_known()},
        codes=_ASSET,
        parameters=[
            _in_path("name", "Name of the image.", "asset_1k0v3m9d5b8qe.png"),
            {
                "name": "expires",
                "in": "query",
                "required": True,
                "description": "Until when the URL is good; Unix seconds.",
                "schema": text,
            },
            {
                "name": "signature",
                "in": "query",
                "required": True,
                "description": "Proves that this server made the URL.",
                "schema": text,
            },
            _in_query(
                "width",
                "For a small copy: a WebP in sRGB, at most so many pixels wide. Put it behind the "
                "signed URL; the signature stays as it is.",
                enum=[str(width) for width in WIDTHS],
            ),
            {
                "name": "Range",
                "in": "header",
                "description": "One range of bytes, such as `bytes=0-1023`; anything else is "
                "ignored.",
                "schema": text,
            },
            _IF_NONE_MATCH,
        ],
    )


def _callback() -> Operation:
    operation = _operation(
        "receiveCallback",
        "Server",
        "Take an upstream's callback",
        description="For upstreams, not for clients: a channel that is set to `callbacks = true` "
        "tells its upstream to call here when a job ends. It is verified by the upstream's own "
        "signature, and only makes the server ask the upstream now instead of a little later.",
        answers={"204": _response("Taken; a repeated one does no harm.")},
        codes=("callback_not_found", "invalid_signature", "body_too_large", *_BROKEN),
        parameters=[_in_path("channel", "Slug of the channel.", "kie-main")],
    )
    body = {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}}
    return {**operation, "requestBody": body, "security": []}


def _agents() -> Operation:
    codes = (*_KEY, "unsupported_media_type", "body_too_large", *_BROKEN)
    summary = "Take a message of an agent"
    operation = _operation(
        "callMcp", "Agents", summary, description=agents.ABOUT, answers={}, codes=codes
    )
    return agents.with_messages(operation)


def _health() -> Operation:
    return _operation(
        "getHealth",
        "Server",
        "Is the process alive",
        description="Looks at nothing but the process itself.",
        answers={"200": _response("It is.", json=reference("Health"))},
        codes=("internal_error",),
    )


def _ready() -> Operation:
    operation = _operation(
        "getReadiness",
        "Server",
        "Can requests be served",
        description="Looks at every part that a request needs: database, image store, queue.",
        answers={"200": _response("They can.", json=reference("Readiness"))},
        codes=_BROKEN,
    )
    status = STATUSES["service_unavailable"]
    operation["responses"][str(status)] = error_response(
        status, ["service_unavailable"], schema="NotReady"
    )
    return operation


def _openapi() -> Operation:
    document = {"type": "object", "description": "An OpenAPI 3.1 document."}
    return _operation(
        "getOpenApi",
        "Server",
        "This document",
        description="The API with the models of this server. Public and cacheable.",
        answers={
            "200": _response("The document.", json=document, headers=_CACHED),
            **_known(),
        },
        codes=("internal_error",),
        parameters=[_IF_NONE_MATCH],
    )


def _docs() -> Operation:
    page = _response("The page.", headers=(*_CACHED, "Content-Security-Policy"))
    page["content"] = {"text/html": {"schema": {"type": "string"}}}
    return _operation(
        "getDocs",
        "Server",
        "The reference for people",
        description="The same as a page to read. Public and cacheable.",
        answers={"200": page, **_known()},
        codes=("internal_error",),
        parameters=[_IF_NONE_MATCH],
    )


def _llms() -> Operation:
    text = _response("The text.", headers=_CACHED)
    text["content"] = {"text/markdown": {"schema": {"type": "string"}}}
    return _operation(
        "getLlmsText",
        "Server",
        "The reference for language models",
        description="Steps, routes, models and errors in a few pages of Markdown, as "
        "https://llmstxt.org describes it. Public and cacheable.",
        answers={"200": text, **_known()},
        codes=("internal_error",),
        parameters=[_IF_NONE_MATCH],
    )
