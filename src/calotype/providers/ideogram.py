"""Ideogram: a form is answered with images by URL, at once.

The upstream's id of the model is a part of the path. An image that moderation withholds comes
with HTTP 200 and an empty URL; an unsafe prompt with the status of any invalid request, and only
the text of it says which of the two it was.
"""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

import msgspec

from calotype.domain.channel import Channel
from calotype.domain.outcomes import SubmitOutcome
from calotype.domain.wire import Upstream
from calotype.net.bodies import Body, form_body
from calotype.net.client import Answer
from calotype.providers.images_api import ImagesApi
from calotype.providers.inline import form_fields
from calotype.providers.kind import Kind
from calotype.providers.line import Tools, is_success
from calotype.providers.port import Job
from calotype.providers.reading import fields, text
from calotype.providers.verdicts import ended

UNSAFE: Final = "unsafe"
"""The code that we give to what moderation stopped, as Ideogram has none."""


class _Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table ``protocol`` of the provider's file."""

    prompt_fields: dict[str, str]
    moderated_status: int
    moderation_words: tuple[str, ...]


class Ideogram(ImagesApi):
    """Speaks it to one channel."""

    def __init__(self, channel: Channel, upstream: Upstream, tools: Tools) -> None:
        key = channel.api_key.value if channel.api_key else ""
        super().__init__(channel, upstream, tools, headers={"Api-Key": key})
        self._facts = msgspec.convert(upstream.protocol, _Facts)

    def _path(self, job: Job) -> str:
        return f"v1/{quote(job.upstream_model, safe='')}/generate"

    def _body(self, job: Job) -> Body:
        prompt = self._facts.prompt_fields.get(job.upstream_model, "prompt")
        document: dict[str, Any] = {prompt: job.request.prompt, **job.fields}
        if job.request.n > 1:
            document["num_images"] = job.request.n
        return form_body(form_fields(document))

    def _read(self, job: Job, answer: Answer) -> SubmitOutcome:
        document = fields(answer.document)
        if answer.status == self._facts.moderated_status:
            said = _said(document)
            if any(word in said.lower() for word in self._facts.moderation_words):
                return self._line.refuse(answer, code=UNSAFE, detail=said)
        data = document.get("data")
        if is_success(answer) and isinstance(data, list):
            safe = [item for item in data if not _is_unsafe(item)]
            if data and not safe:
                return ended("policy", detail=self._line.said(answer))
            answer = msgspec.structs.replace(answer, document={**document, "data": safe})
        return super()._read(job, answer)


def _is_unsafe(item: object) -> bool:
    return fields(item).get("is_image_safe") is False


def _said(document: Mapping[str, Any]) -> str:
    values = (text(document, name) for name in ("error", "detail", "message"))
    return " ".join(filter(None, values))


KIND: Final = Kind(make=Ideogram)
