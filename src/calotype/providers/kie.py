"""kie.ai (market / jobs API): a task is created, then its record is read until it ends.

Every answer is HTTP 200 with an envelope, and its ``code`` is what counts. The record of a task
that was just created may not be visible yet, so the id that we keep says when that was:
``<taskId> <milliseconds>``. References go out by URL; one that has none is uploaded first, to a
host of its own, which takes the same key.
"""

import base64
import hmac
import re
from collections.abc import Mapping
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final
from urllib.parse import quote

import msgspec

from calotype.domain.channel import Channel
from calotype.domain.outcomes import (
    Accepted,
    Done,
    Failed,
    Fault,
    PollOutcome,
    RecoverOutcome,
    Refused,
    Running,
    SubmitOutcome,
    TryLater,
    Unknown,
)
from calotype.domain.wire import Upstream
from calotype.net.bodies import FilePart, form_body
from calotype.net.client import Answer
from calotype.providers.kie_records import (
    OK,
    code_of,
    envelope_of,
    is_id,
    is_url,
    number_of,
    result_urls,
    text_of,
    told_id,
)
from calotype.providers.kind import Kind
from calotype.providers.line import Line, Tools
from calotype.providers.port import Job, ReferenceImage
from calotype.providers.verdicts import on_create, on_read

CREATE: Final = "api/v1/jobs/createTask"
RECORD: Final = "api/v1/jobs/recordInfo"
UPLOAD: Final = "api/file-stream-upload"
UPLOAD_FOLDER: Final = "calotype"
CALLBACK_SECONDS: Final = 300
"""How far a callback's time may be from ours."""
MOST_CREDITS: Final = 10**6
"""A larger figure is no cost of an image."""

_TIMESTAMP: Final = re.compile(r"[0-9]{1,12}")


class _Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table ``protocol`` of the provider's file."""

    upload_url: str
    references: dict[str, str]
    visible_after_seconds: float
    poll_seconds: float
    longest_poll_seconds: float
    credit_micro_usdc: int
    moderation_words: tuple[str, ...]
    fail_codes: dict[str, str]


class Kie:
    """Speaks to one account at kie.ai."""

    free = False
    synchronous = False

    def __init__(self, channel: Channel, upstream: Upstream, tools: Tools) -> None:
        self._facts = msgspec.convert(upstream.protocol, _Facts)
        key = channel.api_key.value if channel.api_key else ""
        headers = {"Authorization": f"Bearer {key}"}
        self._line = Line(channel, upstream, tools.client, headers=headers)
        usual = self._line.base_url == upstream.base_url
        uploads = self._facts.upload_url if usual else self._line.base_url
        there = msgspec.structs.replace(
            channel, base_url=channel.options.get("upload_url") or uploads
        )
        self._uploads = Line(there, upstream, tools.client, headers=headers)
        self._clock = tools.clock

    async def submit(self, job: Job) -> SubmitOutcome:
        """Hand over what references have no URL, then create the task, once."""
        field = self._facts.references.get(job.model.id)
        if job.references and field is None:
            said = f"upstreams/kie.toml names no field for references to {job.model.id}"
            return on_create("model", detail=said)
        urls: list[str] = []
        for place, reference in enumerate(job.references, start=1):
            url = reference.url or await self._upload(job, place, reference)
            if not isinstance(url, str):
                return url
            urls.append(url)
        sent = {**job.fields, "prompt": job.request.prompt}
        if field is not None and urls:
            sent[field] = urls
        body: dict[str, Any] = {"model": job.upstream_model, "input": sent}
        if job.callback_url is not None and self._line.channel.callback_secret is not None:
            body["callBackUrl"] = job.callback_url
        answer = await self._line.create(CREATE, body=body)
        if not isinstance(answer, Answer):
            return answer
        envelope = envelope_of(answer)
        task_id = envelope.data.get("taskId")
        if envelope.code == OK and is_id(task_id):
            return Accepted(f"{task_id} {self._clock()}", poll_after=self._facts.poll_seconds)
        return self._line.refuse(answer, code=envelope.code, detail=envelope.said)

    async def poll(self, job: Job, upstream_id: str) -> PollOutcome:
        """Read the task's record."""
        task_id, _, created = upstream_id.partition(" ")
        spent = (self._clock() - int(created)) / 1000 if created.isdecimal() else 0.0
        answer = await self._line.ask(f"{RECORD}?taskId={quote(task_id, safe='')}")
        if not isinstance(answer, Answer):
            return answer
        envelope = envelope_of(answer)
        facts = self._facts
        pause = min(facts.longest_poll_seconds, max(facts.poll_seconds, spent / 10))
        if envelope.code == OK:
            return self._told(job, answer, envelope.data, pause=pause)
        outcome = self._line.unread(answer, code=envelope.code, detail=envelope.said)
        if isinstance(outcome, Unknown) and spent < facts.visible_after_seconds:
            return Running(queued=True, poll_after=pause)
        if isinstance(outcome, Failed):
            return self._failed(answer, envelope.data, said=envelope.said)
        return outcome

    async def recover(self, job: Job) -> RecoverOutcome:  # noqa: ARG002 -- the port's
        """Nothing: a task can be asked for by the upstream's own id alone."""
        return Unknown("kie.ai cannot be asked for a task by a reference of ours.")

    async def cancel(self, job: Job, upstream_id: str) -> bool:  # noqa: ARG002 -- the port's
        """No: there is no such call."""
        return False

    def callback(self, headers: Mapping[str, str], body: bytes) -> str | None:
        """The task's id, when signature and time are right; the rest of the body is not signed."""
        secret = self._line.channel.callback_secret
        stamp = headers.get("x-webhook-timestamp", "")
        task_id = told_id(body)
        if secret is None or task_id is None or not _TIMESTAMP.fullmatch(stamp):
            return None
        if abs(self._clock() / 1000 - int(stamp)) > CALLBACK_SECONDS:
            return None
        digest = hmac.digest(secret.value.encode(), f"{task_id}.{stamp}".encode(), "sha256")
        given = headers.get("x-webhook-signature", "").encode(errors="replace")
        return task_id if hmac.compare_digest(base64.b64encode(digest), given) else None

    async def close(self) -> None:
        """Nothing of its own is open."""

    async def _upload(
        self, job: Job, place: int, reference: ReferenceImage
    ) -> str | Refused | TryLater:
        """The URL of a reference handed over; that is free, and a second time overwrites it."""
        ending = reference.content_type.removeprefix("image/")
        name = f"{job.reference or job.task}-{place}.{ending}"
        part = FilePart(name, reference.content_type, reference.size, reference.open)
        answer = await self._uploads.ask(
            UPLOAD,
            method="POST",
            body=form_body([("uploadPath", UPLOAD_FOLDER), ("fileName", name), ("file", part)]),
            timeout_seconds=self._line.channel.timeout_seconds,
        )
        if not isinstance(answer, Answer):
            return answer
        envelope = envelope_of(answer)
        url = envelope.data.get("downloadUrl")
        if envelope.code == OK and is_url(url):
            return str(url)
        outcome = self._uploads.refuse(answer, code=envelope.code, detail=envelope.said)
        if isinstance(outcome, Refused | TryLater):
            return outcome
        said = self._uploads.said(answer, envelope.said)
        message = f"The upstream did not take a reference: {said}"
        return TryLater("upstream_unavailable", message, answer.retry_after, Fault.UPSTREAM)

    def _told(
        self, job: Job, answer: Answer, record: Mapping[str, Any], *, pause: float
    ) -> PollOutcome:
        """What a record says."""
        state = record.get("state")
        if not isinstance(state, str):
            message = "The upstream's record of the task names no state."
            return TryLater("upstream_malformed_response", message, fault=Fault.UPSTREAM)
        match self._line.upstream.states.get(state):
            case "done":
                return self._done(job, record)
            case "failed":
                return self._failed(answer, record)
            case word:
                percent = number_of(record.get("progress"), most=100)
                return Running(
                    progress=None if percent is None else int(percent),
                    queued=word == "queued",
                    poll_after=pause,
                )

    def _done(self, job: Job, record: Mapping[str, Any]) -> Done | Failed:
        cost = self._cost(record)
        urls = result_urls(record.get("resultJson"))[: job.request.n]
        if not urls:
            message = "The upstream says that it is done and names no image."
            return Failed("upstream_malformed_response", message, cost_micro_usdc=cost)
        return Done(tuple(self._line.result(url) for url in urls), cost_micro_usdc=cost)

    def _failed(self, answer: Answer, record: Mapping[str, Any], *, said: str = "") -> PollOutcome:
        """Why a task failed; by a heuristic where it was moderation, which no code tells."""
        said = text_of(record.get("failMsg")) or said
        moderated = any(word in said.lower() for word in self._facts.moderation_words)
        detail = self._line.said(answer, said)
        outcome = on_read("policy" if moderated else "failed", detail=detail)
        if not isinstance(outcome, Failed):
            return outcome
        code = self._facts.fail_codes.get(code_of(record.get("failCode")))
        if code and not moderated:
            outcome = msgspec.structs.replace(outcome, code=code, fault=Fault.REQUEST)
        return msgspec.structs.replace(outcome, cost_micro_usdc=self._cost(record))

    def _cost(self, record: Mapping[str, Any]) -> int | None:
        """Micro-USDC, rounded half up."""
        spent = number_of(record.get("creditsConsumed"), most=MOST_CREDITS)
        if spent is None:
            return None
        exact = Decimal(str(spent)) * self._facts.credit_micro_usdc
        return int(exact.to_integral_value(ROUND_HALF_UP))


KIND: Final = Kind(
    make=Kie,
    options={"upload_url": "where references are uploaded to; it is sent the key"},
)
