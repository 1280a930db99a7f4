"""Replicate: a prediction is made, asked about by its id, and its output fetched.

The upstream's id of a model tells where it is sent: ``owner/name`` is an official model,
``deployments/owner/name`` a deployment, 64 hexadecimal digits are a version (after
``owner/name:`` too).
"""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from calotype.domain.channel import Channel
from calotype.domain.outcomes import (
    Accepted,
    Done,
    Failed,
    PollOutcome,
    Refused,
    Running,
    SubmitOutcome,
    TryLater,
    Unknown,
)
from calotype.domain.wire import ANY_MODEL, Upstream
from calotype.net.bodies import form_body
from calotype.net.client import Answer
from calotype.providers.inline import filed
from calotype.providers.kind import Kind
from calotype.providers.line import ANSWER_BYTES, Line, Tools, bearer, is_success
from calotype.providers.plain import Plain
from calotype.providers.port import Job, ReferenceImage
from calotype.providers.reading import decoded, fields, text
from calotype.providers.verdicts import ended, imageless

UPLOAD_SECONDS: Final = 300.0
CALLBACK_AGE_MS: Final = 5 * 60 * 1000
"""How far the time of a callback may be from ours."""

_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_VERSION: Final = re.compile(r"[0-9a-f]{64}")
_SECRET_PREFIX: Final = "whsec_"  # noqa: S105 -- what a secret begins with
_SIGNATURE_VERSION: Final = "v1,"
_WAIT: Final = re.compile(r"(\d{1,5})(?:\.\d+)? ?s")


class Replicate(Plain):
    """Speaks to one channel."""

    def __init__(self, channel: Channel, upstream: Upstream, tools: Tools) -> None:
        self._line = Line(channel, upstream, tools.client, headers=bearer(channel))
        self._protocol = upstream.protocol
        self._secret = channel.callback_secret
        self._clock = tools.clock

    async def submit(self, job: Job) -> SubmitOutcome:
        """Upload the references that have no URL of ours, then send the prediction."""
        urls: list[str] = []
        for number, reference in enumerate(job.references, start=1):
            url = reference.url or await self._uploaded(reference, number)
            if not isinstance(url, str):
                return url
            urls.append(url)
        path, document = self._prediction(job, urls)
        answer = await self._line.create(path, body=document, max_bytes=ANSWER_BYTES)
        if not isinstance(answer, Answer):
            return answer
        if not is_success(answer):
            return self._line.refuse(_told_to_wait(answer), detail=_detail(answer))
        name = text(answer.document, "id")
        if not _ID.fullmatch(name):
            return Unknown("The upstream took the request and gave the job no name.")
        return Accepted(name, poll_after=self._pause)

    async def poll(self, job: Job, upstream_id: str) -> PollOutcome:
        """Ask for the prediction."""
        del job
        answer = await self._line.ask(f"v1/predictions/{upstream_id}")
        if not isinstance(answer, Answer):
            return answer
        if not is_success(answer):
            return self._line.unread(answer, detail=_detail(answer))
        said = fields(answer.document)
        state = text(said, "status")
        word = self._line.upstream.states.get(state)
        match word:
            case "done":
                return self._done(said)
            case "failed":
                return self._failed(answer, text(said, "error"))
            case "cancelled":
                return ended(word, detail=self._line.said(answer))
        return Running(
            queued=word == "queued", state=self._line.strange(state), poll_after=self._pause
        )

    async def cancel(self, job: Job, upstream_id: str) -> bool:
        """Ask for the prediction to be stopped."""
        del job
        answer = await self._line.ask(f"v1/predictions/{upstream_id}/cancel", method="POST")
        if not isinstance(answer, Answer) or not is_success(answer):
            return False
        state = text(answer.document, "status")
        return self._line.upstream.states.get(state) not in {"done", "failed"}

    def callback(self, headers: Mapping[str, str], body: bytes) -> str | None:
        """The prediction that a webhook signed with our secret tells of."""
        if self._secret is None or not self._is_signed(self._secret.value, headers, body):
            return None
        name = text(decoded(body), "id")
        return name if _ID.fullmatch(name) else None

    @property
    def _pause(self) -> float:
        return float(self._protocol["poll_seconds"])

    def _prediction(self, job: Job, urls: list[str]) -> tuple[str, dict[str, Any]]:
        """Path and body of a send."""
        inputs = dict(job.fields) | {"prompt": job.request.prompt}
        if urls:
            names = self._protocol["references"]
            inputs[names.get(job.model.id, names[ANY_MODEL])] = urls
        document: dict[str, Any] = {"input": inputs}
        if job.callback_url is not None and self._secret is not None:
            document["webhook"] = job.callback_url
            document["webhook_events_filter"] = ["completed"]
        model = job.upstream_model
        version = model.rpartition(":")[2]
        if _VERSION.fullmatch(version):
            document["version"] = version
            return "v1/predictions", document
        folder = "" if model.startswith("deployments/") else "models/"
        return f"v1/{folder}{model}/predictions", document

    async def _uploaded(self, reference: ReferenceImage, number: int) -> str | Refused | TryLater:
        """The URL of a reference that was stored at Replicate; nothing is bought by that."""
        part = filed(reference, f"reference-{number}")
        answer = await self._line.ask(
            "v1/files",
            method="POST",
            body=form_body([("content", part)]),
            timeout_seconds=UPLOAD_SECONDS,
        )
        if not isinstance(answer, Answer):
            return answer
        url = text(fields(answer.document).get("urls"), "get")
        if is_success(answer) and url:
            return url
        return self._line.beforehand(
            _told_to_wait(answer),
            detail=_detail(answer),
            what="The upstream did not take a reference",
        )

    def _done(self, said: Mapping[str, object]) -> Done | Failed:
        output = said.get("output")
        urls = output if isinstance(output, list) else [output]
        images = tuple(self._line.result(url) for url in urls if isinstance(url, str) and url)
        if not images:
            if said.get("data_removed") is True:
                message = (
                    "The upstream made the image and has removed it: it keeps one for an hour."
                )
                return Failed("upstream_malformed_response", message)
            return imageless()
        return Done(images)

    def _failed(self, answer: Answer, error: str) -> Failed:
        """A run that failed, or was moderated: of that there is only the text."""
        words = self._protocol["moderation_words"]
        moderated = any(word in error.lower() for word in words)
        return ended("policy" if moderated else "failed", detail=self._line.said(answer, error))

    def _is_signed(self, secret: str, headers: Mapping[str, str], body: bytes) -> bool:
        """By Standard Webhooks: HMAC-SHA256 over id, time and body, one of several signatures."""
        name, at = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
        try:
            key = base64.b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True)
            age = abs(self._clock() - int(at) * 1000)
        except (binascii.Error, ValueError):
            return False
        if age > CALLBACK_AGE_MS:
            return False
        signed = f"{name}.{at}.".encode() + body
        proof = base64.b64encode(hmac.digest(key, signed, hashlib.sha256))
        return any(
            hmac.compare_digest(entry.removeprefix(_SIGNATURE_VERSION).encode(), proof)
            for entry in headers.get("webhook-signature", "").split(" ")
            if entry.startswith(_SIGNATURE_VERSION)
        )


def _told_to_wait(answer: Answer) -> Answer:
    """The answer, with the time that is told in words alone: "Your rate limit resets in ~30s."."""
    if answer.retry_after is not None or not (seconds := _WAIT.search(_detail(answer))):
        return answer
    return msgspec.structs.replace(answer, retry_after=float(seconds[1]))


def _detail(answer: Answer) -> str:
    return text(answer.document, "detail")


KIND: Final = Kind(make=Replicate)
