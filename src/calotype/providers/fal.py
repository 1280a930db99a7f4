"""fal's queue: send, ask for the state, read the result; every job has URLs of its own."""

import re
from collections.abc import Mapping
from http import HTTPStatus
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
    Running,
    SubmitOutcome,
    Unknown,
)
from calotype.domain.wire import Upstream
from calotype.net.client import Answer
from calotype.providers.fal_callbacks import CallbackKeys
from calotype.providers.fal_storage import Storage
from calotype.providers.kind import Kind
from calotype.providers.line import ANSWER_BYTES, IMAGES_BYTES, Line, Tools, is_success
from calotype.providers.plain import Plain
from calotype.providers.port import Job
from calotype.providers.reading import decoded, fields, items, objects, string, text
from calotype.providers.verdicts import ended, imageless, on_read, unreadable, verdict

_ID: Final = re.compile(r"[A-Za-z0-9._~-]{1,200}")
_PATH: Final = re.compile(r"[!-~]{1,1000}")
_REFUSED: Final = frozenset({401, 403, 404, 429})
"""Answers to a question that say nothing of a run: of our key, our way and our haste alone."""


class _Place(msgspec.Struct, frozen=True):
    """Where a job is told of, as paths below ``base_url``."""

    name: str
    status: str
    result: str
    cancel: str


class Fal(Plain):
    """Speaks to one channel."""

    def __init__(self, channel: Channel, upstream: Upstream, tools: Tools) -> None:
        auth = {"authorization": f"Key {channel.api_key.value if channel.api_key else ''}"}
        self._line = Line(channel, upstream, tools.client, headers=auth)
        self._protocol = upstream.protocol
        usual = self._line.base_url == upstream.base_url.rstrip("/")
        rest = msgspec.structs.replace(
            channel,
            base_url=channel.options.get("rest_url")
            or (self._protocol["rest_url"] if usual else self._line.base_url),
        )
        self._storage = Storage(
            Line(rest, upstream, tools.client, headers=auth),
            upload_hosts=self._protocol["upload_hosts"],
            inline_bytes=self._protocol["inline_bytes"],
        )
        # The keys are public: whoever answers for them is not shown ours.
        self._keys = CallbackKeys(Line(rest, upstream, tools.client, headers={}), tools.clock)

    async def submit(self, job: Job) -> SubmitOutcome:
        """Upload what has to be uploaded, then queue the job."""
        images = await self._storage.given(job.references)
        if not isinstance(images, list):
            return images
        document = dict(job.fields) | {"prompt": job.request.prompt}
        if images:
            document["image_urls"] = images
        path = job.upstream_model
        if job.callback_url is not None:
            await self._keys.refresh()
            path = f"{path}?fal_webhook={quote(job.callback_url, safe='')}"
        answer = await self._line.create(path, body=document, max_bytes=ANSWER_BYTES)
        if not isinstance(answer, Answer):
            return answer
        if not is_success(answer):
            kind = next(iter(self._kinds(answer)), "")
            return self._line.refuse(answer, code=kind, detail=_detail(answer.document))
        return self._accepted(job, answer)

    async def poll(self, job: Job, upstream_id: str) -> PollOutcome:
        """Ask for the state; of a job that ended, read the result."""
        place = _place(job, upstream_id)
        answer = await self._line.ask(place.status)
        if not isinstance(answer, Answer):
            return answer
        if not is_success(answer):
            return self._line.unread(answer, detail=_detail(answer.document))
        status = answer.document
        if not isinstance(status, dict):
            return unreadable()
        state = text(status, "status")
        match self._line.upstream.states.get(state):
            case "queued":
                return Running(queued=True, poll_after=self._patience(status))
            case "done":
                return await self._result(job, place, status)
            case _:
                pause = float(self._protocol["poll_seconds"])
                return Running(state=self._line.strange(state), poll_after=pause)

    async def cancel(self, job: Job, upstream_id: str) -> bool:
        """Ask for a stop; fal promises one only before the run has begun."""
        answer = await self._line.ask(_place(job, upstream_id).cancel, method="PUT")
        return isinstance(answer, Answer) and is_success(answer)

    def callback(self, headers: Mapping[str, str], body: bytes) -> str | None:
        """The job that a callback signed by fal tells of."""
        if not self._keys.signed(headers, body):
            return None
        name = text(decoded(body), "request_id")
        return name if _ID.fullmatch(name) else None

    async def close(self) -> None:
        """Stop fetching the keys of callbacks."""
        await self._keys.close()

    def _accepted(self, job: Job, answer: Answer) -> Accepted | Unknown:
        """The job's name and paths; what fal says is used where it lies below ``base_url``."""
        document = fields(answer.document)
        name = text(document, "request_id")
        if not _ID.fullmatch(name):
            return Unknown("The upstream took the request and gave the job no name.")
        usual = _usual(job, name)
        place = _Place(
            name,
            self._own(document.get("status_url")) or usual.status,
            self._own(document.get("response_url")) or usual.result,
            self._own(document.get("cancel_url")) or usual.cancel,
        )
        upstream_id = " ".join(msgspec.structs.astuple(place))
        return Accepted(upstream_id, poll_after=self._patience(document))

    def _own(self, url: object) -> str:
        """The path of a URL that may be asked with the key; empty where it may not."""
        base = f"{self._line.base_url}/"
        path = url.removeprefix(base) if isinstance(url, str) and url.startswith(base) else ""
        return path if _PATH.fullmatch(path) and "://" not in path else ""

    def _patience(self, document: Mapping[str, Any]) -> float:
        """Seconds until the next question, by the place in the queue."""
        place = document.get("queue_position")
        first = float(self._protocol["poll_seconds"])
        if not isinstance(place, int) or place <= 0:
            return first
        longest = float(self._protocol["longest_poll_seconds"])
        step = float(self._protocol["seconds_per_place"])
        return longest if place > longest / step else min(longest, first + step * place)

    async def _result(self, job: Job, place: _Place, status: Mapping[str, Any]) -> PollOutcome:
        """What became of a job that ended: the status may name an error, the result tells."""
        answer = await self._line.ask(place.result, max_bytes=IMAGES_BYTES)
        if not isinstance(answer, Answer):
            return answer
        if not is_success(answer):
            return self._ended_badly(answer, status)
        if answer.status != HTTPStatus.OK or not isinstance(answer.document, dict):
            return unreadable()
        images, unsafe = self._images(answer)
        if images or unsafe:
            said = self._line.said(answer)
            return Done(images[: job.request.n]) if images else ended("policy", detail=said)
        if self._kinds(answer, status) or status.get("error"):
            return self._ended_badly(answer, status)
        return imageless()

    def _images(self, answer: Answer) -> tuple[tuple[ImageSource, ...], bool]:
        """Where the images are (a data URL with ``sync_mode``), and whether some are unsafe.

        What a model flags as unsafe is not handed out.
        """
        flags = items(answer.document.get("has_nsfw_concepts"))
        found, unsafe = list[ImageSource](), False
        for place, image in enumerate(items(answer.document.get("images"))):
            if flags[place : place + 1] == [True]:
                unsafe = True
                continue
            url = text(image, "url")
            source = self._line.result(url) if url.startswith("http") else answer.blob(url)
            if source is not None:
                found.append(source)
        return tuple(found), unsafe

    def _ended_badly(self, answer: Answer, status: Mapping[str, Any]) -> PollOutcome:
        """Tell a run that failed from a result that could not be read just now.

        The status is the run's own word. Where it names no error, or none that is known,
        ``X-Fal-Retryable`` says whether the result may be read again; of a question that was
        refused itself it says nothing.
        """
        detail = _detail(answer.document) or text(status, "error")
        told_of = bool(status.get("error") or status.get("error_type"))
        errors: Mapping[str, str] = self._protocol["errors"]
        kinds = self._kinds(answer, status)
        word = next((errors[kind] for kind in kinds if kind in errors), None)
        retryable = _retryable(answer)
        if retryable and not told_of and word in {None, "failed"}:
            word = "again"
        elif word is None:
            word = verdict(self._line.upstream.read, answer.status)
            broke = answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR and not retryable
            final = retryable is False and answer.status not in _REFUSED
            final = final or (told_of and (word != "again" or broke)) or is_success(answer)
            word = "failed" if final else word
        said = self._line.said(answer, detail)
        if word == "request":
            message = f"The upstream refused the request: {said}"
            return Failed("upstream_rejected", message, Fault.REQUEST)
        return on_read(word, detail=said, retry_after=answer.retry_after)

    def _kinds(self, answer: Answer, status: Mapping[str, Any] | None = None) -> list[str]:
        """The types of an error: a breach of policy first, then as they come."""
        findings = objects(fields(answer.document).get("detail"))
        kinds = [
            answer.headers.get("x-fal-error-type", ""),
            text(answer.document, "error_type"),
            *(text(each, "type") for each in findings),
            text(status, "error_type"),
        ]
        errors: Mapping[str, str] = self._protocol["errors"]
        return sorted(filter(None, kinds), key=lambda kind: errors.get(kind) != "policy")


def _usual(job: Job, name: str) -> _Place:
    """Where a job is by fal's rule: below owner/alias, without the model's sub-path."""
    app = "/".join(job.upstream_model.split("/")[:2])
    root = f"{app}/requests/{name}"
    return _Place(name, f"{root}/status", root, f"{root}/cancel")


def _place(job: Job, upstream_id: str) -> _Place:
    parts = upstream_id.split(" ")
    whole = len(parts) == len(_Place.__struct_fields__)
    return _Place(*parts) if whole else _usual(job, parts[0])


def _detail(document: object) -> str:
    """What an error says to people: ``detail`` is a text, or a list of findings."""
    detail = fields(document).get("detail")
    return string(detail) or "; ".join(text(each, "msg") for each in objects(detail))


def _retryable(answer: Answer) -> bool | None:
    """What fal says of the same question asked again; None where it says nothing."""
    said = answer.headers.get("x-fal-retryable") or answer.headers.get("x-fal-needs-retry")
    return None if said is None else said.strip().lower() in {"true", "1"}


KIND: Final = Kind(
    make=Fal,
    options={
        "rest_url": (
            "where storage and the keys of callbacks are, if neither at fal nor at base_url; it "
            "is sent the key"
        )
    },
    urls=("rest_url",),
)
