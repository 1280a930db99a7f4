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
from calotype.providers.images_api import ImagesApi, bearer
from calotype.providers.kind import Kind
from calotype.providers.line import Tools
from calotype.providers.port import Job
from calotype.providers.verdicts import on_create, on_read

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
        fields: list[tuple[str, str | FilePart]] = [
            ("none", FilePart("none", "application/octet-stream", 0, _empty))
        ]
        for name, value in document.items():
            fields.append((name, value if isinstance(value, str) else str(value).lower()))
        return form_body(fields)

    def _read(self, job: Job, answer: Answer) -> SubmitOutcome:
        document = answer.document if isinstance(answer.document, dict) else {}
        ended = _text(document.get("finish_reason"))
        word = self._line.upstream.states.get(ended)
        if 200 <= answer.status < 300 and word in {"policy", "failed"}:  # noqa: PLR2004 -- what HTTP calls success
            return on_read(word, detail=self._line.said(answer, ended))
        return super()._read(job, msgspec.structs.replace(answer, document=_plain(document)))


def _plain(document: dict[str, Any]) -> dict[str, Any]:
    """An answer as the family writes one: ``data`` for the image, ``error`` for a fault."""
    if "image" in document or "finish_reason" in document:
        return {"data": [{"b64_json": document.get("image")}]}
    errors = document.get("errors")
    said = [text for text in errors if isinstance(text, str)] if isinstance(errors, list) else []
    name = _text(document.get("name"))
    return {"error": {"code": name, "message": "; ".join(said) or name}} if name or said else {}


@asynccontextmanager
async def _empty() -> AsyncIterator[AsyncIterator[bytes]]:
    yield _nothing()


async def _nothing() -> AsyncIterator[bytes]:
    nothing: tuple[bytes, ...] = ()
    for chunk in nothing:
        yield chunk


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


KIND: Final = Kind(make=Stability)
