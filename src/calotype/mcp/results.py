"""What the tools answer: text for the model, images to look at, and the same as data."""

import base64
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from mcp_types import CallToolResult, ContentBlock, ImageContent, TextContent

from calotype.client import AsyncCalotype, CalotypeError
from calotype.mcp.arguments import (
    FailureShown,
    ImageShown,
    ModelsShown,
    TaskShown,
    TasksShown,
)
from calotype.mcp.previews import INLINE_BYTES, Previews

_MICRO: Final = 1_000_000
_PROMPT: Final = 200
_NOT_SHOWN: Final = "Not shown here, its URL has it."
_GOES_ON: Final = (
    "It goes on: call get_task with this id to wait for it. Asking for the same image anew would "
    "buy a second one."
)


def refused(message: str) -> CallToolResult:
    """What was asked for cannot be done."""
    return CallToolResult(content=[TextContent(text=message)], is_error=True)


def models(entries: Sequence[dict[str, Any]]) -> CallToolResult:
    """Models; in their order."""
    return _told(ModelsShown(models=list(entries)))


def tasks(documents: Sequence[Mapping[str, Any]]) -> CallToolResult:
    """Several tasks, without their images."""
    return _told(TasksShown(tasks=[shown(each) for each in documents]))


def cancelled(document: Mapping[str, Any]) -> CallToolResult:
    """A task that was told to end."""
    task = shown(document)
    match task.state:
        case "success":
            text = f"{task.task_id} was finished already; get_task has its image."
        case "fail":
            text = f"{task.task_id} has ended. {_paid(task)}"
        case _:
            text = f"{task.task_id} ends as soon as its upstream lets it; get_task tells when."
    return _task([TextContent(text=text)], task)


def unfinished(document: Mapping[str, Any]) -> CallToolResult:
    """A task that is not final yet."""
    task = shown(document)
    text = f"{task.task_id} is {task.state}, {task.progress} percent. {_GOES_ON}"
    return _task([TextContent(text="\n".join([text, *_lines(task.images)]))], task)


def unfollowed(document: Mapping[str, Any], why: str) -> CallToolResult:
    """A task that was bought, and of which nothing more is known."""
    task = shown(document)
    text = (
        f"{task.task_id} was accepted, but it could not be followed just now: "
        f"{why.rstrip('.')}. {_GOES_ON}"
    )
    return _task([TextContent(text=text)], task)


def failed(document: Mapping[str, Any]) -> CallToolResult:
    """A task that came to nothing."""
    task = shown(document)
    error = task.error or FailureShown(code="unknown", message="It failed.", retryable=False)
    again = (
        "The same request anew can help." if error.retryable else "The same request fails again."
    )
    text = f"{task.task_id} failed: {error.message} ({error.code}) {_paid(task)} {again}"
    return _task([TextContent(text=text)], task, is_error=True)


async def finished(
    document: Mapping[str, Any], client: AsyncCalotype, previews: Previews
) -> CallToolResult:
    """A task with its images: as they are where they are small enough, else smaller copies."""
    task = shown(document)
    count = len(task.images)
    head = f"{task.task_id} has {count} image{'s' * (count != 1)} by {task.model}, {_usdc(task)}."
    if document.get("deleted_at"):
        head += " They were deleted."
    elif not task.images and document.get("expires_at"):
        head += " They were kept until their time was over."
    blocks, notes = list[ContentBlock](), list[str]()
    for image in task.images:
        note, block = await _looked_at(image, client, previews, limit=INLINE_BYTES // count)
        notes.append(note)
        blocks += [block] if block else []
    text = "\n".join([head, *_lines(task.images, notes)])
    return _task([TextContent(text=text), *blocks], task)


def shown(document: Mapping[str, Any]) -> TaskShown:
    """A task as the tools tell of it, from the document that the API gives."""
    request, error = document.get("request") or {}, document.get("error")
    prompt = str(request.get("prompt", ""))
    result = document.get("result") or document.get("partial_result") or {}
    return TaskShown(
        task_id=document["task_id"],
        state=str(document["state"]).lower(),
        progress=int(document.get("progress") or 0),
        model=str(document["model"]),
        prompt=prompt if len(prompt) <= _PROMPT else f"{prompt[:_PROMPT]}…",
        charged_micro_usdc=(document.get("billing") or {}).get("actual_amount_micro_usdc") or 0,
        images=[
            msgspec.convert(image, ImageShown)
            for image in result.get("data") or ()
            if not image.get("expired")
        ],
        error=msgspec.convert(error, FailureShown) if error else None,
    )


async def _looked_at(
    image: ImageShown, client: AsyncCalotype, previews: Previews, *, limit: int
) -> tuple[str, ImageContent | None]:
    """What to say of an image, and the image where it can be shown.

    The task is done and paid for, so an image that cannot be had right now is no failure: its
    URL is told all the same.
    """
    try:
        async with previews.turn():
            data = await client.download(image.url)
            picture = await previews.picture(data, image.content_type or "", limit=limit)
    except CalotypeError:
        return f"{_NOT_SHOWN} It could not be read just now.", None
    if picture is None:
        return _NOT_SHOWN, None
    block = ImageContent(
        data=base64.b64encode(picture.data).decode(), mime_type=picture.content_type
    )
    if picture.size is None:
        return "", block
    width, height = picture.size
    return f"Shown is a JPEG copy of {width}x{height}; its URL has the original.", block


def _lines(images: Sequence[ImageShown], notes: Sequence[str] = ()) -> list[str]:
    said = [*notes, *[""] * (len(images) - len(notes))]
    return [
        " ".join(filter(None, [f"{place}.", *_about(image), note]))
        for place, (image, note) in enumerate(zip(images, said, strict=True), start=1)
    ]


def _about(image: ImageShown) -> list[str]:
    size = f"{image.width}x{image.height}" if image.width and image.height else ""
    until = ""
    if image.expires_at is not None:
        until = f"(good until {datetime.fromtimestamp(image.expires_at, UTC):%Y-%m-%d %H:%M} UTC)"
    return [size, image.content_type or "", image.url, until]


def _paid(task: TaskShown) -> str:
    return f"{_usdc(task)} were charged." if task.charged_micro_usdc else "Nothing was charged."


def _usdc(task: TaskShown) -> str:
    return f"{task.charged_micro_usdc / _MICRO:.6f}".rstrip("0").rstrip(".") + " USDC"


def _told(document: msgspec.Struct) -> CallToolResult:
    """Data, and the same as text for agents that do not read data."""
    data = msgspec.to_builtins(document)
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return CallToolResult(content=[TextContent(text=text)], structured_content=data)


def _task(
    content: list[ContentBlock], task: TaskShown, *, is_error: bool = False
) -> CallToolResult:
    data = msgspec.to_builtins(task)
    return CallToolResult(content=content, structured_content=data, is_error=is_error)
