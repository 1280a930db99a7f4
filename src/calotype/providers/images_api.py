"""The family of OpenAI's Images API: one POST, answered with the images themselves.

OpenAI, Azure, Seedream, Recraft and many local servers differ in path, credential, parameters
and in how references travel; how an answer is read is the same. There is no job to ask about: an
answer that is lost stays lost, and may have been paid. Where images come as URLs, these are the
upstream's id of the job: stored before the download, so that it can begin again, elsewhere too.
"""

from collections.abc import Callable, Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final

import msgspec

from calotype.domain.channel import Channel
from calotype.domain.money import MAX_AMOUNT
from calotype.domain.outcomes import (
    Accepted,
    Done,
    Failed,
    ImageSource,
    PollOutcome,
    RecoverOutcome,
    SubmitOutcome,
    Unknown,
)
from calotype.domain.wire import Upstream
from calotype.net.bodies import Body, FilePart, form_body, json_body
from calotype.net.client import Answer
from calotype.providers.line import Line, Tools
from calotype.providers.port import Job, ReferenceImage
from calotype.providers.verdicts import on_read, verdict

GENERATIONS: Final = "images/generations"
EDITS: Final = "images/edits"

_ID_BYTES: Final = 4096
_NAME: Final = 80
"""Most characters of an upstream's own name for a call."""
_NO_JOB: Final = "The upstream has no jobs that it could be asked about."


class _Made(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Finished images at their URLs: written as JSON, the upstream's id of the job."""

    urls: tuple[str, ...]
    cost: int | None = None


class ImagesApi:
    """Speaks the family's common part to one channel.

    Args:
        channel: the channel.
        upstream: the provider's file.
        tools: what every provider works with.
        headers: the credential.

    """

    free = False
    synchronous = True

    def __init__(
        self, channel: Channel, upstream: Upstream, tools: Tools, *, headers: Mapping[str, str]
    ) -> None:
        self._line = Line(channel, upstream, tools.client, headers=headers)
        self._request_id = str(upstream.protocol.get("request_id", ""))

    async def submit(self, job: Job) -> SubmitOutcome:
        """Send the request and read the images from its answer."""
        answer = await self._line.create(
            self._path(job), body=self._body(job), on_event=self._watch(job)
        )
        return self._read(job, answer) if isinstance(answer, Answer) else answer

    async def poll(self, job: Job, upstream_id: str) -> PollOutcome:  # noqa: ARG002 -- the port's
        """The images, by the URLs that the answer named."""
        try:
            made = msgspec.json.decode(upstream_id, type=_Made)
        except msgspec.MsgspecError:
            return Unknown(_NO_JOB)
        return Done(tuple(self._located(url) for url in made.urls), made.cost)

    async def recover(self, job: Job) -> RecoverOutcome:  # noqa: ARG002 -- the port's
        """There is nothing to ask."""
        return Unknown(_NO_JOB)

    async def cancel(self, job: Job, upstream_id: str) -> bool:  # noqa: ARG002 -- the port's
        """Nothing can be stopped: hanging up loses the image and not the bill."""
        return False

    def callback(self, headers: Mapping[str, str], body: bytes) -> str | None:  # noqa: ARG002 -- the port's
        """Nobody calls back."""
        return None

    async def close(self) -> None:
        """The client is the process's, not ours."""

    def _path(self, job: Job) -> str:
        return EDITS if job.references else GENERATIONS

    def _document(self, job: Job) -> dict[str, Any]:
        """The fields of the request, references apart."""
        document = job.fields | {"prompt": job.request.prompt}
        if job.upstream_model:
            document["model"] = job.upstream_model
        if job.request.n > 1:
            document["n"] = job.request.n
        return document

    def _body(self, job: Job) -> Body:
        document = self._document(job)
        return _form(document, job.references) if job.references else json_body(document)

    def _watch(self, job: Job) -> Callable[[Any], bool] | None:  # noqa: ARG002 -- for who streams
        """Sees the events of an answer that is streamed, where one was asked for."""
        return None

    def _cost(self, job: Job, answer: Answer) -> int | None:  # noqa: ARG002 -- for who is told
        """Micro-USDC that the upstream says it charged."""
        return None

    def _located(self, url: str) -> ImageSource:
        """The image at a URL, as the upstream wrote it."""
        return self._line.result(url)

    def _read(self, job: Job, answer: Answer) -> SubmitOutcome:
        faults = _faults(answer.document)
        if not 200 <= answer.status < 300:  # noqa: PLR2004 -- what HTTP calls success
            code, detail = self._told(self._line.upstream.create, answer, faults)
            return self._line.refuse(answer, code=code, detail=detail)
        items = _items(answer.document)
        found = [image for item in items if (image := _image(answer, item)) is not None]
        if found:
            return self._made(found[: job.request.n], self._cost(job, answer))
        if any(_text(item.get("b64_json")) for item in items):
            message = "The upstream's answer holds an image that is no base64."
            return Failed("upstream_malformed_response", message)
        if faults:
            table = self._line.upstream.read
            code, detail = self._told(table, answer, faults)
            word = verdict(table, answer.status, code)
            if word is None or word == "again":  # accepted it was, and there is nothing to ask
                word = "failed"
            return on_read(word, detail=self._line.said(answer, detail))
        if isinstance(answer.document, dict) and isinstance(answer.document.get("data"), list):
            return Done((), self._cost(job, answer))
        return Unknown("The upstream answered with neither an image nor a reason.")

    def _made(self, found: list[str | ImageSource], cost: int | None) -> Accepted | Done:
        urls = tuple(image for image in found if isinstance(image, str))
        if len(urls) == len(found):
            upstream_id = msgspec.json.encode(_Made(urls, cost)).decode()
            if len(upstream_id.encode()) <= _ID_BYTES:
                return Accepted(upstream_id, poll_after=0.0)
        images = (self._located(each) if isinstance(each, str) else each for each in found)
        return Done(tuple(images), cost)

    def _told(
        self, table: Mapping[str, str], answer: Answer, faults: list[Mapping[str, Any]]
    ) -> tuple[str, str]:
        """The first code that the table has under this status, and what was said with it.

        What was said begins with the upstream's own name for the call, for its support to find.
        """
        found, said = "", ""
        for fault in faults:
            codes = _codes(fault)
            said = said or _text(fault.get("message")) or " ".join(codes[:1])
            found = next((code for code in codes if f"{answer.status} {code}" in table), "")
            if found:
                said = _text(fault.get("message")) or found
                break
        name = answer.headers.get(self._request_id, "")[:_NAME]
        return found, f"({name}) {said or answer.text}" if name else said


def bearer(channel: Channel) -> dict[str, str]:
    """The credential as most of the family take it; nothing where there is none."""
    return {"Authorization": f"Bearer {channel.api_key.value}"} if channel.api_key else {}


def counted(value: object) -> Decimal | None:
    """A number with which an upstream counts; None for anything else that stands there."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return Decimal(str(value)) if 0 <= value <= MAX_AMOUNT else None


def rounded(amount: Decimal) -> int | None:
    """Whole micro-USDC, rounded half up; None for an amount that nobody is charged."""
    if not amount.is_finite() or not 0 <= amount <= MAX_AMOUNT:
        return None
    return int(amount.quantize(Decimal(1), rounding=ROUND_HALF_UP))


def _form(document: Mapping[str, Any], references: tuple[ReferenceImage, ...]) -> Body:
    fields: list[tuple[str, str | FilePart]] = [
        (name, value if isinstance(value, str) else str(value).lower())
        for name, value in document.items()
    ]
    name = "image[]" if len(references) > 1 else "image"
    for place, image in enumerate(references, 1):
        suffix = image.content_type.rpartition("/")[2]
        part = FilePart(f"reference-{place}.{suffix}", image.content_type, image.size, image.open)
        fields.append((name, part))
    return form_body(fields)


def _image(answer: Answer, item: Mapping[str, Any]) -> str | ImageSource | None:
    """An image, or the URL of one; a URL that holds the image itself is as good as base64."""
    if written := _text(item.get("b64_json")):
        return answer.blob(written)
    url = _text(item.get("url"))
    if not url or "://" in url or url.startswith("/"):
        return url if url and url.isprintable() else None
    return answer.blob(url) or (url if url.isprintable() else None)


def _items(document: object) -> list[dict[str, Any]]:
    """What may hold an image: the entries of ``data``, or the last event of a stream itself."""
    if not isinstance(document, dict):
        return []
    data = document.get("data")
    if isinstance(data, list):
        return [item for item in data if isinstance(item, dict)]
    return [{"b64_json": document["b64_json"]}] if "b64_json" in document else []


def _faults(document: object) -> list[Mapping[str, Any]]:
    """The errors that an answer tells of: its own, or one of an image.

    ``{"error": {…}}``, ``{"error": "text"}``, ``{"type": "error", "code": …, "message": …}``, and
    the ``{"message": …}`` and ``{"detail": …}`` of simple servers.
    """
    if not isinstance(document, dict):
        return []
    found: list[Mapping[str, Any]] = []
    for place in (document, *_items(document)):
        error = place.get("error")
        if isinstance(error, dict):
            found.append(error)
        elif text := _text(error) or _text(place.get("detail")):
            found.append({"message": text})
    if not found and (document.get("type") == "error" or _text(document.get("message"))):
        found.append(document)
    return found


def _codes(error: Mapping[str, Any]) -> list[str]:
    """The codes of an error, the most telling first; ``Code.More`` is also ``Code``."""
    inner = error.get("inner_error") or error.get("innererror")
    values = [error.get("code"), error.get("type")]
    if isinstance(inner, dict):
        values.append(inner.get("code"))
    codes = [text for value in values if (text := _text(value))]
    return [form for code in codes for form in dict.fromkeys((code, code.partition(".")[0]))]


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
