"""Stability: a form is answered with one image, here as base64 within JSON.

The upstream's id of a model is that of an engine: it decides the path, and for some is a field.
An image that moderation stopped comes with HTTP 200, blurred, so the reason is read before it.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import msgspec

from calotype.domain.channel import Channel
from calotype.domain.outcomes import SubmitOutcome
from calotype.domain.wire import Upstream
from calotype.net.bodies import Body, FilePart, form_body
from calotype.net.client import Answer
from calotype.providers.images_api import ImagesApi
from calotype.providers.inline import form_fields
from calotype.providers.kind import Kind
from calotype.providers.line import Tools, bearer, is_success
from calotype.providers.naming import named_by_the_operator
from calotype.providers.port import Job
from calotype.providers.reading import fields, items, text
from calotype.providers.verdicts import ended, on_create

GENERATE: Final = "stable-image/generate"


class _Engine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where an engine is asked, and what the form calls it; empty where the path says it all."""

    path: str
    model: str = ""


class _Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table ``protocol`` of the provider's file."""

    engines: dict[str, _Engine]


class Stability(ImagesApi):
    """Speaks it to one channel."""

    def __init__(self, channel: Channel, upstream: Upstream, tools: Tools) -> None:
        headers = bearer(channel) | {"Accept": "application/json"}
        super().__init__(channel, upstream, tools, headers=headers)
        self._engines = msgspec.convert(upstream.protocol, _Facts).engines

    async def submit(self, job: Job) -> SubmitOutcome:
        """Send the request to the engine's path and read the image from its answer."""
        if job.upstream_model not in self._engines:
            known = ", ".join(self._engines)
            return on_create("model", detail=f"upstreams/stability.toml has only {known}")
        return await super().submit(job)

    def _path(self, job: Job) -> str:
        return f"{GENERATE}/{self._engines[job.upstream_model].path}"

    def _body(self, job: Job) -> Body:
        document: dict[str, Any] = {"prompt": job.request.prompt, **job.fields}
        if model := self._engines[job.upstream_model].model:
            document["model"] = model
        none = FilePart("none", "application/octet-stream", 0, _empty)
        return form_body([("none", none), *form_fields(document)])

    def _read(self, job: Job, answer: Answer) -> SubmitOutcome:
        document = fields(answer.document)
        reason = text(document, "finish_reason")
        word = self._line.upstream.states.get(reason)
        if is_success(answer) and word in {"policy", "failed"}:
            return ended(word, detail=self._line.said(answer, reason))
        return super()._read(job, msgspec.structs.replace(answer, document=_plain(document)))


def _plain(document: dict[str, Any]) -> dict[str, Any]:
    """An answer as the family writes one: ``data`` for the image, ``error`` for a fault."""
    if "image" in document or "finish_reason" in document:
        return {"data": [{"b64_json": document.get("image")}]}
    said = [each for each in items(document.get("errors")) if isinstance(each, str)]
    name = text(document, "name")
    return {"error": {"code": name, "message": "; ".join(said) or name}} if name or said else {}


@asynccontextmanager
async def _empty() -> AsyncIterator[AsyncIterator[bytes]]:
    yield _nothing()


async def _nothing() -> AsyncIterator[bytes]:
    nothing: tuple[bytes, ...] = ()
    for chunk in nothing:
        yield chunk


KIND: Final = Kind(make=Stability, narrow=named_by_the_operator)
