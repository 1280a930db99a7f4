"""The routes of files, as OpenAPI operations, and what they answer."""

from typing import Any, Final

from calotype.api.openapi.operations import (
    BROKEN,
    KEY,
    Operation,
    in_path,
    in_query,
    operation,
    response,
)
from calotype.api.openapi.shapes import UNIX, Schema, constant, record, reference, text, whole
from calotype.api.task_list import DEFAULT_LIMIT, MAX_LIMIT
from calotype.domain.files import PATTERN
from calotype.domain.ids import word_pattern
from calotype.services.multipart import FILE_FIELD

TAG: Final = "Files"
_EXAMPLE: Final = "asset_1k0v3m9d5b8qe"
_BINARY: Final = {"type": "string", "format": "binary"}
_TYPES: Final = ("image/png", "image/jpeg", "image/webp", "application/octet-stream")


def paths() -> dict[str, Schema]:
    """The operations by path and method."""
    return {
        "/v1/files": {"post": _upload(), "get": _list()},
        "/v1/files/{file_id}": {"get": _show(), "delete": _delete()},
    }


def schemas() -> dict[str, Schema]:
    """The schemas by component name."""
    return {"File": _file(), "FileList": _file_list(), "FileForm": _form()}


def _upload() -> Operation:
    headers = ["Location", "Cache-Control"]
    made = operation(
        "createFile",
        TAG,
        "Upload a file",
        description="An image that is uploaded once and is a reference of many requests: name its "
        "`reference` in `image_input`. Send a form with one file, or the image itself as the "
        "body. The content counts, not the name or the declared type.\n\n"
        "The same bytes again are the same file, so this is safe to repeat. A file is kept until "
        "`expires_at`, which each upload and each request that names it moves on.",
        answers={
            "201": response("The new file.", json=reference("File"), headers=headers),
            "200": response(
                "The file that was there with the same bytes.",
                json=reference("File"),
                headers=headers,
            ),
        },
        codes=(
            *("missing_field", "invalid_parameter", "unsupported_parameter", "malformed_body"),
            *("unsupported_reference_type", *KEY, "reference_too_large", "body_too_large"),
            *("insufficient_balance", "unsupported_media_type", *BROKEN),
        ),
    )
    content: dict[str, Any] = {
        "multipart/form-data": {
            "schema": reference("FileForm"),
            "encoding": {FILE_FIELD: {"contentType": "image/jpeg, image/png, image/webp"}},
        },
        **{kind: {"schema": _BINARY} for kind in _TYPES},
    }
    return {**made, "requestBody": {"required": True, "content": content}}


def _list() -> Operation:
    return operation(
        "listFiles",
        TAG,
        "List the files",
        description="The account's files, newest first, in pages. With `next_cursor` as `cursor` "
        "the next page follows.",
        answers={"200": response("A page.", json=reference("FileList"), headers=["Cache-Control"])},
        codes=("invalid_parameter", "unsupported_parameter", *KEY, *BROKEN),
        parameters=[
            in_query(
                "limit",
                "Files in a page.",
                type="integer",
                minimum=1,
                maximum=MAX_LIMIT,
                default=DEFAULT_LIMIT,
            ),
            in_query(
                "cursor", "The `next_cursor` of the page before.", pattern=word_pattern("page")
            ),
        ],
    )


def _show() -> Operation:
    return operation(
        "getFile",
        TAG,
        "Read a file",
        description="Only its owner sees a file. `url` is fresh each time.",
        answers={"200": response("The file.", json=reference("File"), headers=["Cache-Control"])},
        codes=(*KEY, "file_not_found", *BROKEN),
        parameters=[in_path("file_id", "The id from the upload.", _EXAMPLE)],
    )


def _delete() -> Operation:
    return operation(
        "deleteFile",
        TAG,
        "Delete a file",
        description="It is removed for good, and its URL answers 404 at once. A task that names "
        "it and was not sent yet fails with `reference_gone`; images that were made of it stay.",
        answers={"204": response("The file is gone.")},
        codes=(*KEY, "file_not_found", *BROKEN),
        parameters=[in_path("file_id", "The id from the upload.", _EXAMPLE)],
    )


def _file() -> Schema:
    schema = record(
        "An image that was uploaded once.",
        {
            "id": text("Id of the file.", pattern=word_pattern("asset")),
            "object": constant("file", "Always `file`."),
            "reference": text("What names it in `image_input`.", pattern=PATTERN),
            "content_type": text("As it is stored."),
            "width": whole("Pixels.", minimum=1),
            "height": whole("Pixels.", minimum=1),
            "bytes": whole("As it is stored.", minimum=1),
            "created_at": whole(f"{UNIX}."),
            "expires_at": {
                "type": ["integer", "null"],
                "minimum": 0,
                "description": f"{UNIX}: from then on it is gone, unless it is used before.",
            },
            "url": text("Signed, to look at it: needs no key, and expires.", format="uri"),
        },
    )
    schema["examples"] = [
        {
            "id": _EXAMPLE,
            "object": "file",
            "reference": f"asset://{_EXAMPLE}",
            "content_type": "image/png",
            "width": 2048,
            "height": 1536,
            "bytes": 5_242_880,
            "created_at": 1_760_000_000,
            "expires_at": 1_760_172_800,
            "url": f"https://images.example.com/v1/assets/{_EXAMPLE}.png"
            "?expires=1760090400&signature=3f9c…",
        }
    ]
    return schema


def _file_list() -> Schema:
    return record(
        "A page of files, newest first.",
        {
            "object": constant("list", "Always `list`."),
            "data": {"type": "array", "items": reference("File"), "description": "The files."},
            "has_more": {"type": "boolean", "description": "Whether there is another page."},
            "next_cursor": {
                "type": ["string", "null"],
                "description": "`cursor` of the next page; null where there is none.",
            },
        },
    )


def _form() -> Schema:
    form = record(
        "A form that is one file.",
        {FILE_FIELD: {**_BINARY, "description": "The image. Clients may call it `image`, too."}},
    )
    return {**form, "additionalProperties": False}
