"""The surface for OpenAI's clients, as OpenAPI operations and schemas."""

from collections.abc import Sequence
from typing import Any, Final, get_args

from calotype.api.openai.answers import FORMATS, Kind
from calotype.api.openai.fields import MAX_PARTIAL_IMAGES
from calotype.api.openapi.operations import BROKEN, KEY, RATE, SUBMIT, Operation, refusals
from calotype.api.openapi.requests import PROMPT, REFERENCE_TYPES, REQUIRED, TEXT, or_null
from calotype.api.openapi.shapes import Schema, constant, record, reference, text, whole
from calotype.domain.catalog import Model
from calotype.domain.options import MAX_VALUE

TAG: Final = "OpenAI"

_JSON: Final = "OpenAiImageRequest"
_FORM: Final = "OpenAiImageForm"
_KEYED: Final = (*KEY, *BROKEN)
_SUBMIT: Final = tuple(code for code in SUBMIT if code != "unsupported_response_format")
_SIZE: Final = "^(?:auto|[1-9][0-9]{0,4}x[1-9][0-9]{0,4})$"
_COMPLETED: Final = tuple(f"{kind}.completed" for kind in get_args(Kind))
_MENDABLE: Final = (
    "\n\nAlso for a task that failed in a way that the client can mend: "
    "`content_policy_violation`, `reference_fetch_failed`, `reference_too_large`, "
    "`unsupported_reference_type`."
)
_HELD: Final = (
    "An ordinary task underneath: it shows under `/v1/tasks`, and goes on when the client leaves. "
    "The request is held open until the task ends. After 25 seconds the status `200` and blanks "
    "are sent, so that no proxy cuts the connection; an error after that is an object `error` "
    "in the body (OpenAI's Python library is cut off instead, and told with a status when it tries "
    "again).\n\n"
    "Fields mean what they mean to OpenAI, within what the model can do; a parameter of the "
    "catalog may be given by its own name. What the model cannot do is refused.\n\n"
    "With `stream`, server-sent events: `{kind}.completed` for each image, or `error`. No channel "
    "has partial images yet."
)


def openai_paths() -> dict[str, Schema]:
    """The operations by path and method."""
    return {
        "/openai/v1/images/generations": {"post": _generation()},
        "/openai/v1/images/edits": {"post": _edit()},
        "/openai/v1/models": {"get": _models()},
        "/openai/v1/models/{model_id}": {"get": _model()},
    }


def openai_schemas(models: Sequence[Model]) -> dict[str, Schema]:
    """Every schema of the surface by its component name."""
    fields = _fields(models)
    json = {
        name: schema if name in REQUIRED else or_null(schema) for name, schema in fields.items()
    }
    file = {"type": "string", "format": "binary", "contentMediaType": "application/octet-stream"}
    images = {
        "type": "array",
        "minItems": 1,
        "items": file,
        "description": "The images to edit, in this order; `image[]` is the same.",
    }
    return {
        _JSON: _request("An image request, as OpenAI's clients write it.", json),
        _FORM: _request("An edit, as OpenAI's clients write it.", {**fields, "image": images}),
        "OpenAiImages": _images(),
        "OpenAiModel": _model_schema(),
        "OpenAiModelList": record(
            "Every model that is switched on.",
            {
                "object": constant("list", "Always `list`."),
                "data": {"type": "array", "items": reference("OpenAiModel")},
            },
        ),
        "OpenAiError": _error(),
        "OpenAiEvent": _event(),
        "OpenAiEventImage": _event_image(),
        "OpenAiEventError": record(
            "That there is no image.",
            {"type": constant("error", "Always `error`."), **_error()["properties"]},
        ),
    }


# Operations


def _generation() -> Operation:
    operation = _operation(
        "openaiGenerateImage",
        "Generate an image",
        description=_HELD.replace("{kind}", "image_generation"),
        answers=_answers(),
        codes=_SUBMIT,
    )
    operation["requestBody"] = {
        "required": True,
        "content": {"application/json": {"schema": reference(_JSON)}},
    }
    return operation


def _edit() -> Operation:
    operation = _operation(
        "openaiEditImage",
        "Edit images",
        description=f"{_HELD.replace('{kind}', 'image_edit')}\n\nNo model takes a `mask` yet.",
        answers=_answers(),
        codes=_SUBMIT,
    )
    operation["requestBody"] = {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": reference(_FORM),
                "encoding": {"image": {"contentType": REFERENCE_TYPES}},
            }
        },
    }
    return operation


def _models() -> Operation:
    return _operation(
        "openaiListModels",
        "List the models",
        description="The models that are switched on.",
        answers={"200": _response("The models.", reference("OpenAiModelList"))},
        codes=_KEYED,
    )


def _model() -> Operation:
    operation = _operation(
        "openaiGetModel",
        "Read one model",
        description="One entry of the list.",
        answers={"200": _response("The model.", reference("OpenAiModel"))},
        codes=(*_KEYED, "model_not_found"),
    )
    name = {"type": "string", "examples": ["nano-banana-pro"]}
    in_path = {"name": "model_id", "in": "path", "required": True, "schema": name}
    operation["parameters"].append({**in_path, "description": "Id of the model."})
    return operation


def _operation(
    name: str, summary: str, *, description: str, answers: dict[str, Schema], codes: Sequence[str]
) -> Operation:
    refused = refusals(codes, schema="OpenAiError")
    parameters: list[Schema] = [{"$ref": "#/components/parameters/X-Request-Id"}]
    if "424" in answers:
        refused["400"]["description"] += _MENDABLE
        parameters.append({"$ref": "#/components/parameters/Idempotency-Key"})
    return {
        "operationId": name,
        "tags": [TAG],
        "summary": summary,
        "description": description,
        "parameters": parameters,
        "responses": {**answers, **refused},
    }


def _answers() -> dict[str, Schema]:
    images = _response("The images, or their events.", reference("OpenAiImages"), of_task=True)
    images["content"]["text/event-stream"] = {"schema": reference("OpenAiEvent")}
    failed = _response(
        "The task was accepted, and there is no image to show: it failed, with its code, or this "
        "server stops and it goes on. Another request would be another purchase, so the status "
        "is one that no client tries again; `x-should-retry: true` tells OpenAI's own clients "
        "when a further try is given the same task.",
        reference("OpenAiError"),
        of_task=True,
    )
    return {"200": images, "424": failed}


def _response(description: str, json: Schema, *, of_task: bool = False) -> Schema:
    names = ["X-Calotype-Task-Id", *RATE, "X-Request-Id"] if of_task else ["X-Request-Id"]
    return {
        "description": description,
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in names},
        "content": {"application/json": {"schema": json}},
    }


# Schemas


def _request(description: str, fields: dict[str, Schema]) -> Schema:
    schema = record(description, fields)
    required = [*REQUIRED, *(["image"] if "image" in fields else [])]
    streamed = {"properties": {"stream": {"const": True}}, "required": ["stream"]}
    inline = {"properties": {"response_format": {"not": {"const": "url"}}}}
    said = "A stream carries images inline."
    return {
        **schema,
        "required": required,
        "additionalProperties": True,
        "allOf": [{"description": said, "if": streamed, "then": inline}],
    }


def _fields(models: Sequence[Model]) -> dict[str, Schema]:
    ids = [model.id for model in models]
    most = max((model.n.maximum for model in models), default=1)
    return {
        "model": text("Id of the model.", **({"enum": ids} if ids else {})),
        "prompt": text("What the image shows.", minLength=1, pattern=PROMPT),
        "n": {
            "type": "integer",
            "minimum": 1,
            "maximum": most,
            "description": "How many, as the model allows.",
        },
        "size": text("`auto`, or a size that the model has, such as `1024x1024`.", pattern=_SIZE),
        "quality": text("`auto`, or what the model has of it."),
        "output_format": text("`png`, `jpeg` or `webp`, as the model has it."),
        "response_format": text("Inline or as links.", enum=["b64_json", "url"]),
        "background": text("`auto`, or what the model has of it."),
        "stream": {"type": "boolean", "description": "Answer with server-sent events."},
        "partial_images": whole("At most so many of them.", maximum=MAX_PARTIAL_IMAGES),
        "user": text(
            "Kept as `metadata` of the task; so is `safety_identifier`.",
            maxLength=MAX_VALUE,
            pattern=TEXT,
        ),
    }


def _images() -> Schema:
    item = record(
        "One image: one of the two.",
        {
            "b64_json": text("The file as base64.", contentEncoding="base64"),
            "url": text("Where it is; signed, and good for as long as it says.", format="uri"),
        },
        optional=("b64_json", "url"),
    )
    fields: dict[str, Any] = {
        "created": whole("When the images were finished; Unix seconds."),
        "size": text("Width and height of the first image, `1024x1024`."),
        "output_format": text("What the files are.", enum=list(FORMATS.values())),
        "background": text("Where one was chosen."),
        "quality": text("Where one was chosen."),
        "data": {"type": "array", "items": item},
    }
    done = record("The images.", fields, optional=("background", "quality"))
    return {"anyOf": [done, reference("OpenAiError")]}


def _event() -> Schema:
    either = {"anyOf": [reference("OpenAiEventImage"), reference("OpenAiEventError")]}
    return record(
        "One event of a stream; the fields of its lines.",
        {
            "event": text("What happened.", enum=[*_COMPLETED, "error"]),
            "data": text("JSON.", contentMediaType="application/json", contentSchema=either),
        },
    )


def _event_image() -> Schema:
    return record(
        "One finished image.",
        {
            "type": text("As `event`.", enum=list(_COMPLETED)),
            "b64_json": text("The file as base64.", contentEncoding="base64"),
            "created_at": whole("When the images were finished; Unix seconds."),
            "size": text("Width and height, `1024x1024`."),
            "output_format": text("What the file is.", enum=list(FORMATS.values())),
            "background": text("What was chosen, or `auto`."),
            "quality": text("What was chosen, or `auto`."),
            "usage": {
                "type": "object",
                "description": "Zeros: images are charged by the piece, no tokens are counted.",
            },
        },
    )


def _model_schema() -> Schema:
    return record(
        "A model.",
        {
            "id": text("To be given as `model`."),
            "object": constant("model", "Always `model`."),
            "created": whole("When it was released, or came into the catalog; Unix seconds."),
            "owned_by": text("Its brand."),
        },
    )


def _error() -> Schema:
    nullable = {"type": ["string", "null"]}
    error = record(
        "What went wrong.",
        {
            "message": text("For a person: what is wrong, and what would be right."),
            "type": text("Family of the error."),
            "param": {**nullable, "description": "The field at fault, where there is one."},
            "code": text("The precise cause, as in `Error` or in a task's `error`."),
        },
    )
    return record("An error in OpenAI's shape, whatever raised it.", {"error": error})
