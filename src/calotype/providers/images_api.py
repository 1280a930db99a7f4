"""The family of OpenAI's Images API: one POST, answered with the images themselves.

OpenAI, Azure, Seedream, Recraft and many local servers differ in path, credential, parameters
and in how references travel; how an answer is read is the same. There is no job to ask about: an
answer that is lost stays lost, and may have been paid. Where images come as URLs, these are the
upstream's id of the job: stored before the download, so that it can begin again, elsewhere too.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from calotype.domain.channel import Channel
from calotype.domain.outcomes import (
    Accepted,
    Done,
    Failed,
    ImageSource,
    PollOutcome,
    SubmitOutcome,
    Unknown,
)
from calotype.domain.wire import Upstream
from calotype.net.bodies import Body, form_body, json_body
from calotype.net.client import Answer
from calotype.providers.inline import filed, form_fields
from calotype.providers.line import Line, Tools, is_success
from calotype.providers.made import kept, made_of
from calotype.providers.plain import Plain
from calotype.providers.port import Job, ReferenceImage
from calotype.providers.reading import fields, objects, string, text
from calotype.providers.verdicts import ended, verdict

GENERATIONS: Final = "images/generations"
EDITS: Final = "images/edits"

FINAL: Final = ("image_generation.completed", "image_edit.completed")
"""The events of a stream that hold an image which is no draft."""
_NAME: Final = 80
"""Most characters of an upstream's own name for a call."""
_NO_JOB: Final = "The upstream has no jobs that it could be asked about."


class ImagesApi(Plain):
    """Speaks the family's common part to one channel.

    Args:
        channel: the channel.
        upstream: the provider's file.
        tools: what every provider works with.
        headers: the credential.

    """

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
        made = made_of(upstream_id)
        if made is None:
            return Unknown(_NO_JOB)
        return Done(tuple(self._located(url) for url in made.urls), made.cost)

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
        if not is_success(answer):
            code, detail = self._told(self._line.upstream.create, answer, faults)
            return self._line.refuse(answer, code=code, detail=detail)
        items = _items(answer.document)
        found = [image for item in items if (image := _image(answer, item)) is not None]
        if found:
            return self._made(found[: job.request.n], self._cost(job, answer))
        if any(text(item, "b64_json") for item in items):
            message = "The upstream's answer holds an image that is no base64."
            return Failed("upstream_malformed_response", message)
        if faults:
            table = self._line.upstream.read
            code, detail = self._told(table, answer, faults)
            said = self._line.said(answer, detail)
            return ended(verdict(table, answer.status, code), detail=said)
        if isinstance(fields(answer.document).get("data"), list):
            return Done((), self._cost(job, answer))
        return Unknown("The upstream answered with neither an image nor a reason.")

    def _made(self, found: list[str | ImageSource], cost: int | None) -> Accepted | Done:
        urls = tuple(image for image in found if isinstance(image, str))
        if len(urls) == len(found) and (upstream_id := kept(urls, cost)):
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
            said = said or text(fault, "message") or " ".join(codes[:1])
            found = next((code for code in codes if f"{answer.status} {code}" in table), "")
            if found:
                said = text(fault, "message") or found
                break
        name = answer.headers.get(self._request_id, "")[:_NAME]
        return found, f"({name}) {said or answer.text}" if name else said


def _form(document: Mapping[str, Any], references: tuple[ReferenceImage, ...]) -> Body:
    name = "image[]" if len(references) > 1 else "image"
    images = [
        (name, filed(image, f"reference-{place}")) for place, image in enumerate(references, 1)
    ]
    return form_body([*form_fields(document), *images])


def _image(answer: Answer, item: Mapping[str, Any]) -> str | ImageSource | None:
    """An image, or the URL of one; a URL that holds the image itself is as good as base64."""
    if written := text(item, "b64_json"):
        return answer.blob(written)
    url = text(item, "url")
    if not url or "://" in url or url.startswith("/"):
        return url if url and url.isprintable() else None
    return answer.blob(url) or (url if url.isprintable() else None)


def is_last(event: Mapping[str, Any]) -> bool:
    """Whether an event ends a stream: with the image, or with an error."""
    return event.get("type") in (*FINAL, "error") or bool(event.get("error"))


def _items(document: object) -> list[dict[str, Any]]:
    """What may hold an image: the entries of ``data``, or the event that ends a stream well."""
    answered = fields(document)
    if isinstance(answered.get("data"), list):
        return objects(answered["data"])
    is_final = answered.get("type") in FINAL and "b64_json" in answered
    return [{"b64_json": answered["b64_json"]}] if is_final else []


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
        elif said := string(error) or text(place, "detail"):
            found.append({"message": said})
    if not found and (document.get("type") == "error" or text(document, "message")):
        found.append(document)
    return found


def _codes(error: Mapping[str, Any]) -> list[str]:
    """The codes of an error, the most telling first; ``Code.More`` is also ``Code``."""
    inner = error.get("inner_error") or error.get("innererror")
    codes = (text(error, "code"), text(error, "type"), text(inner, "code"))
    return [
        form for code in codes if code for form in dict.fromkeys((code, code.partition(".")[0]))
    ]
