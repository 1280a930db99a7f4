"""Qwen-Image at its maker: Alibaba Model Studio (DashScope), the multimodal call.

A chat message of images and a text is answered with images by URL, at once. Errors, which may
come with HTTP 200, carry a code, and that is what counts: ``Throttling.RateQuota`` is also
``Throttling``.
"""

from typing import Any, Final

import msgspec

from calotype.domain.channel import Channel
from calotype.domain.outcomes import SubmitOutcome
from calotype.domain.wire import Upstream
from calotype.net.bodies import Body, json_body
from calotype.net.client import Answer
from calotype.providers.images_api import ImagesApi
from calotype.providers.inline import located
from calotype.providers.kind import Kind
from calotype.providers.line import Tools, bearer, is_success
from calotype.providers.port import Job
from calotype.providers.reading import fields, items, objects, text

GENERATION: Final = "services/aigc/multimodal-generation/generation"

_NAME: Final = 80
"""Most characters of the upstream's own name for a call."""


class Qwen(ImagesApi):
    """Speaks it to one channel."""

    def __init__(self, channel: Channel, upstream: Upstream, tools: Tools) -> None:
        super().__init__(channel, upstream, tools, headers=bearer(channel))

    def _path(self, job: Job) -> str:  # noqa: ARG002 -- the family's
        return GENERATION

    def _body(self, job: Job) -> Body:
        content = [{"image": located(image)} for image in job.references]
        message = {"role": "user", "content": [*content, {"text": job.request.prompt}]}
        parameters = {**job.fields.get("parameters", {}), "n": job.request.n}
        document = {"model": job.upstream_model, "input": {"messages": [message]}}
        return json_body({**job.fields, **document, "parameters": parameters})

    def _read(self, job: Job, answer: Answer) -> SubmitOutcome:
        """Read it as the family reads its own, but for a refusal that says success."""
        document = _plain(answer.document)
        answer = msgspec.structs.replace(answer, document=document)
        fault = document.get("error")
        if fault is None or document["data"] or not is_success(answer):
            return super()._read(job, answer)
        code, said = self._told(self._line.upstream.create, answer, [fault])
        return self._line.refuse(answer, code=code, detail=said)


def _plain(document: object) -> dict[str, Any]:
    """An answer as the family writes one: ``data`` where there is output, ``error`` for a code."""
    if not isinstance(document, dict):
        return {}
    code, output = document.get("code"), document.get("output")
    plain: dict[str, Any] = {"data": _images(output)} if isinstance(output, dict) else {}
    if isinstance(code, str) and code:
        name, said = text(document, "request_id")[:_NAME], text(document, "message")
        message = f"({name}) {said or code}" if name else said or code
        plain = {"data": [], **plain, "error": {"code": code, "message": message}}
    return plain


def _images(output: dict[str, Any]) -> list[dict[str, str]]:
    """Every image of every choice, by its URL."""
    messages = [fields(choice.get("message")) for choice in objects(output.get("choices"))]
    parts = [part for message in messages for part in items(message.get("content"))]
    return [{"url": url} for part in parts if (url := text(part, "image"))]


KIND: Final = Kind(make=Qwen)
