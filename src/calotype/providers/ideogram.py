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
from calotype.providers.kind import Kind
from calotype.providers.line import Tools
from calotype.providers.port import Job
from calotype.providers.verdicts import on_read

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
        fields = [
            (name, value if isinstance(value, str) else str(value).lower())
            for name, value in document.items()
        ]
        return form_body(fields)

    def _read(self, job: Job, answer: Answer) -> SubmitOutcome:
        document = answer.document if isinstance(answer.document, dict) else {}
        if answer.status == self._facts.moderated_status:
            said = _said(document)
            if any(word in said.lower() for word in self._facts.moderation_words):
                return self._line.refuse(answer, code=UNSAFE, detail=said)
        data = document.get("data")
        if 200 <= answer.status < 300 and isinstance(data, list):  # noqa: PLR2004 -- what HTTP calls success
            safe = [item for item in data if not _is_unsafe(item)]
            if data and not safe:
                return on_read("policy", detail=self._line.said(answer))
            answer = msgspec.structs.replace(answer, document={**document, "data": safe})
        return super()._read(job, answer)


def _is_unsafe(item: object) -> bool:
    return isinstance(item, dict) and item.get("is_image_safe") is False


def _said(document: Mapping[str, Any]) -> str:
    values = [document.get(name) for name in ("error", "detail", "message")]
    return " ".join(value for value in values if isinstance(value, str))


KIND: Final = Kind(make=Ideogram)
