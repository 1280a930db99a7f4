"""The Xenodia image API as an upstream: the hosted one, or another Calotype.

A generation is answered with a task (202) or, by older servers, with the image (200). Our own
server knows an ``Idempotency-Key`` again, so a channel that leads to one may be called
``idempotent``; the hosted API documents none.
"""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

import msgspec

from calotype.domain.channel import Channel
from calotype.domain.outcomes import (
    Accepted,
    Done,
    Failed,
    Fault,
    ImageSource,
    PollOutcome,
    RecoverOutcome,
    Running,
    SubmitOutcome,
    TryLater,
    Unknown,
)
from calotype.domain.wire import Upstream
from calotype.net.bodies import Body, FilePart, form_body
from calotype.net.client import Answer
from calotype.providers.kind import Kind
from calotype.providers.line import Line, Tools
from calotype.providers.port import Job
from calotype.providers.verdicts import on_read

GENERATIONS: Final = "v1/images/generations"
TASKS: Final = "v1/tasks"
POLL_SECONDS: Final = 2.0
"""Between polls where the upstream recommends nothing."""
SHORTEST_POLL: Final = 0.2
LONGEST_POLL: Final = 30.0
LONGEST_ID: Final = 256
MOST_COST: Final = 10**12
"""Micro-USDC; a larger figure is no cost of an image."""

_WORDS: Final = {"content_policy_violation": "policy", "cancelled": "cancelled"}
"""Code of a failure → the verdict that says it; every other one is ``failed``."""


class Xenodia:
    """Speaks to one server."""

    free = False
    synchronous = False

    def __init__(self, channel: Channel, upstream: Upstream, tools: Tools) -> None:
        key = channel.api_key.value if channel.api_key else ""
        headers = {"Authorization": f"Bearer {key}"}
        self._line = Line(channel, upstream, tools.client, headers=headers)
        self._failures = msgspec.convert(upstream.protocol["failures"], dict[str, str])

    async def submit(self, job: Job) -> SubmitOutcome:
        """Ask for the image under our own reference, once."""
        headers = {"Idempotency-Key": job.reference} if job.reference else {}
        answer = await self._line.create(GENERATIONS, body=_body(job), headers=headers)
        if not isinstance(answer, Answer):
            return answer
        document = _object(answer.document)
        if _is_success(answer):
            task_id = document.get("task_id")
            if _is_id(task_id):
                return Accepted(str(task_id), poll_after=_interval(answer, document))
            if images := self._images(job, document):
                return Done(images)
        return self._line.refuse(answer, code=_word(document), detail=_message(document))

    async def poll(self, job: Job, upstream_id: str) -> PollOutcome:
        """Read the task."""
        answer = await self._line.ask(f"{TASKS}/{quote(upstream_id, safe='')}")
        if not isinstance(answer, Answer):
            return answer
        document = _object(answer.document)
        if not _is_success(answer):
            return self._line.unread(answer, code=_word(document), detail=_message(document))
        state = document.get("state")
        if not isinstance(state, str):
            message = "The upstream's answer about the task names no state."
            return TryLater("upstream_malformed_response", message, fault=Fault.UPSTREAM)
        match self._line.upstream.states.get(state.lower()):
            case "done":
                return self._done(job, document)
            case "failed":
                return self._failed(answer, document)
            case word:
                return Running(
                    progress=_whole(document.get("progress"), most=100),
                    queued=word == "queued",
                    poll_after=_interval(answer, document),
                )

    async def recover(self, job: Job) -> RecoverOutcome:  # noqa: ARG002 -- the port's
        """Nothing: a key can only be sent again with the whole request, which might buy."""
        return Unknown("The upstream cannot be asked for a task by a reference of ours.")

    async def cancel(self, job: Job, upstream_id: str) -> bool:  # noqa: ARG002 -- the port's
        """Ask for it; a server that knows no such call says 404 or 405, which is a no."""
        path = f"{TASKS}/{quote(upstream_id, safe='')}/cancel"
        answer = await self._line.ask(path, method="POST")
        return isinstance(answer, Answer) and _is_success(answer)

    def callback(self, headers: Mapping[str, str], body: bytes) -> str | None:  # noqa: ARG002 -- the port's
        """None: the API documents no callbacks, so none is asked for."""
        return None

    async def close(self) -> None:
        """Nothing of its own is open."""

    def _done(self, job: Job, document: Mapping[str, Any]) -> Done | Failed:
        cost = _cost(document)
        images = self._images(job, _object(document.get("result")))
        if not images:
            message = "The upstream says that it is done and names no image."
            return Failed("upstream_malformed_response", message, cost_micro_usdc=cost)
        return Done(images, cost_micro_usdc=cost)

    def _failed(self, answer: Answer, document: Mapping[str, Any]) -> PollOutcome:
        """Why a task failed, by its error's code."""
        error = _object(document.get("error"))
        code = self._failures.get(_word(error), "upstream_failed")
        word = _WORDS.get(code, "failed")
        outcome = on_read(word, detail=self._line.said(answer, _message(error)))
        if not isinstance(outcome, Failed):
            return outcome
        return msgspec.structs.replace(outcome, code=code, cost_micro_usdc=_cost(document))

    def _images(self, job: Job, result: Mapping[str, Any]) -> tuple[ImageSource, ...]:
        """The images of a result, whose URLs may be relative to the upstream's host."""
        data = result.get("data")
        items = data[: job.request.n] if isinstance(data, list) else []
        urls = (self._whole_url(_object(item).get("url")) for item in items)
        return tuple(self._line.result(url) for url in urls if url)

    def _whole_url(self, url: object) -> str:
        if not isinstance(url, str) or not url:
            return ""
        try:
            whole = self._line.joined(url)
        except ValueError:
            return ""
        return whole if whole.startswith(("https://", "http://")) else ""


def _body(job: Job) -> Body | dict[str, Any]:
    """A JSON document; a form where a reference has no URL of ours and is sent itself."""
    fields: dict[str, Any] = {
        **job.fields,
        "model": job.upstream_model or job.request.model,
        "prompt": job.request.prompt,
        "n": job.request.n,
        "response_format": "url",
        "async": True,
    }
    urls = [reference.url for reference in job.references if reference.url]
    if len(urls) == len(job.references):
        return {**fields, "image_input": urls} if urls else fields
    parts: list[tuple[str, str | FilePart]] = [
        (name, _text(value)) for name, value in fields.items()
    ]
    for place, reference in enumerate(job.references, start=1):
        if reference.url:
            parts.append(("image_input", reference.url))
            continue
        name = f"reference-{place}.{reference.content_type.removeprefix('image/')}"
        part = FilePart(name, reference.content_type, reference.size, reference.open)
        parts.append(("image", part))
    return form_body(parts)


def _text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _is_success(answer: Answer) -> bool:
    return 200 <= answer.status < 300  # noqa: PLR2004 -- HTTP


def _is_id(value: object) -> bool:
    return (
        isinstance(value, str)
        and 0 < len(value) <= LONGEST_ID
        and value.isascii()
        and value.isprintable()
        and " " not in value
    )


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _word(error: Mapping[str, Any]) -> str:
    code = error.get("code")
    return code if isinstance(code, str) and len(code) <= LONGEST_ID else ""


def _message(error: Mapping[str, Any]) -> str:
    message = error.get("message")
    return message[:1000] if isinstance(message, str) else ""


def _whole(value: object, *, most: int) -> int | None:
    """An integer from 0 to ``most``; None for all else."""
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= most else None


def _cost(document: Mapping[str, Any]) -> int | None:
    """What a final task cost us there, in micro-USDC."""
    return _whole(_object(document.get("billing")).get("actual_amount_micro_usdc"), most=MOST_COST)


def _interval(answer: Answer, document: Mapping[str, Any]) -> float:
    """Seconds until the next poll, as the upstream recommends, within reason."""
    recommended = _whole(document.get("recommended_poll_interval_ms"), most=3_600_000)
    seconds = POLL_SECONDS if recommended is None else recommended / 1000
    if answer.retry_after is not None:
        seconds = answer.retry_after
    return min(LONGEST_POLL, max(SHORTEST_POLL, seconds))


KIND: Final = Kind(make=Xenodia)
