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
from calotype.net.bodies import FilePart, form_body
from calotype.net.client import Answer
from calotype.providers.kind import Kind
from calotype.providers.line import ANSWER_BYTES, Line, Tools
from calotype.providers.port import Job, ReferenceImage
from calotype.providers.verdicts import on_read

UPLOAD_SECONDS: Final = 300.0
CALLBACK_AGE_MS: Final = 5 * 60 * 1000
"""How far the time of a callback may be from ours."""

_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_VERSION: Final = re.compile(r"[0-9a-f]{64}")
_SECRET_PREFIX: Final = "whsec_"  # noqa: S105 -- what a secret begins with
_SIGNATURE_VERSION: Final = "v1,"
_WAIT: Final = re.compile(r"(\d{1,5})(?:\.\d+)? ?s")


class Replicate:
    """Speaks to one channel."""

    free = False
    synchronous = False

    def __init__(self, channel: Channel, upstream: Upstream, tools: Tools) -> None:
        key = channel.api_key.value if channel.api_key else ""
        self._line = Line(
            channel, upstream, tools.client, headers={"Authorization": f"Bearer {key}"}
        )
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
        if not _is_success(answer):
            return self._refused(answer)
        name = _text(_fields(answer).get("id"))
        if not _ID.fullmatch(name):
            return Unknown("The upstream took the request and gave the job no name.")
        return Accepted(name, poll_after=self._pause)

    async def poll(self, job: Job, upstream_id: str) -> PollOutcome:
        """Ask for the prediction."""
        del job
        answer = await self._line.ask(f"v1/predictions/{upstream_id}")
        if not isinstance(answer, Answer):
            return answer
        if not _is_success(answer):
            return self._line.unread(answer, detail=_detail(answer))
        said = _fields(answer)
        word = self._line.upstream.states.get(_text(said.get("status")))
        match word:
            case "done":
                return self._done(said)
            case "failed":
                return self._failed(answer, _text(said.get("error")))
            case "cancelled":
                return on_read(word, detail=self._line.said(answer))
        return Running(queued=word == "queued", poll_after=self._pause)

    async def recover(self, job: Job) -> Unknown:
        """Tell that Replicate has no such question."""
        del job
        return Unknown("Replicate does not know a prediction by our reference.")

    async def cancel(self, job: Job, upstream_id: str) -> bool:
        """Ask for the prediction to be stopped."""
        del job
        answer = await self._line.ask(f"v1/predictions/{upstream_id}/cancel", method="POST")
        if not isinstance(answer, Answer) or not _is_success(answer):
            return False
        state = _text(_fields(answer).get("status"))
        return self._line.upstream.states.get(state) not in {"done", "failed"}

    def callback(self, headers: Mapping[str, str], body: bytes) -> str | None:
        """The prediction that a webhook signed with our secret tells of."""
        if self._secret is None or not self._is_signed(self._secret.value, headers, body):
            return None
        try:
            document = msgspec.json.decode(body)
        except (msgspec.DecodeError, RecursionError):
            return None
        name = _text(document.get("id")) if isinstance(document, dict) else ""
        return name if _ID.fullmatch(name) else None

    async def close(self) -> None:
        """Nothing is held."""

    @property
    def _pause(self) -> float:
        return float(self._protocol["poll_seconds"])

    def _prediction(self, job: Job, urls: list[str]) -> tuple[str, dict[str, Any]]:
        """Path and body of a send."""
        fields = dict(job.fields) | {"prompt": job.request.prompt}
        if urls:
            names = self._protocol["references"]
            fields[names.get(job.model.id, names[ANY_MODEL])] = urls
        document: dict[str, Any] = {"input": fields}
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
        suffix = reference.content_type.partition("/")[2]
        part = FilePart(
            filename=f"reference-{number}.{suffix}",
            content_type=reference.content_type,
            size=reference.size,
            open=reference.open,
        )
        answer = await self._line.ask(
            "v1/files",
            method="POST",
            body=form_body([("content", part)]),
            timeout_seconds=UPLOAD_SECONDS,
        )
        if not isinstance(answer, Answer):
            return answer
        urls = _fields(answer).get("urls")
        url = _text(urls.get("get")) if isinstance(urls, dict) else ""
        if _is_success(answer) and url:
            return url
        refused = self._refused(answer)
        if isinstance(refused, Refused | TryLater):
            return refused
        message = f"The upstream did not take a reference: {self._line.said(answer)}"
        return TryLater("upstream_unavailable", message, answer.retry_after)

    def _refused(self, answer: Answer) -> SubmitOutcome:
        outcome = self._line.refuse(answer, detail=_detail(answer))
        if isinstance(outcome, TryLater) and outcome.retry_after is None:
            # A limit is explained in words alone: "Your rate limit resets in ~30s."
            seconds = _WAIT.search(_detail(answer))
            wait = float(seconds[1]) if seconds else None
            return msgspec.structs.replace(outcome, retry_after=wait)
        return outcome

    def _done(self, said: Mapping[str, object]) -> Done | Failed:
        output = said.get("output")
        urls = output if isinstance(output, list) else [output]
        images = tuple(self._line.result(url) for url in urls if isinstance(url, str) and url)
        if not images:
            message = "The upstream says that it is done and has no image."
            if said.get("data_removed") is True:
                message = (
                    "The upstream made the image and has removed it: it keeps one for an hour."
                )
            return Failed("upstream_malformed_response", message)
        return Done(images)

    def _failed(self, answer: Answer, error: str) -> PollOutcome:
        """A run that failed, or was moderated: of that there is only the text."""
        words = self._protocol["moderation_words"]
        moderated = any(word in error.lower() for word in words)
        return on_read("policy" if moderated else "failed", detail=self._line.said(answer, error))

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


def _is_success(answer: Answer) -> bool:
    return 200 <= answer.status < 300  # noqa: PLR2004 -- HTTP's own classes


def _fields(answer: Answer) -> Mapping[str, object]:
    return answer.document if isinstance(answer.document, dict) else {}


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _detail(answer: Answer) -> str:
    return _text(_fields(answer).get("detail"))


KIND: Final = Kind(make=Replicate)
