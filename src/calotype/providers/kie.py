"""kie.ai (market / jobs API): a task is created, then its record is read until it ends.

Every answer is HTTP 200 with an envelope, and its ``code`` is what counts, under HTTP's 4xx too.
The record of a task that was just created may not be visible yet, so the id that we keep says when
that was: ``<taskId> <milliseconds>``. References go out by URL; one that has none is uploaded
first, to a host of its own, which takes the same key.
"""

import base64
import hmac
import re
from collections.abc import Mapping
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
    Refused,
    Running,
    SubmitOutcome,
    TryLater,
    Unknown,
)
from calotype.domain.wire import Upstream
from calotype.net.bodies import form_body
from calotype.net.client import Answer
from calotype.providers.inline import filed
from calotype.providers.kie_records import (
    LONGEST_TEXT,
    OK,
    code_of,
    is_url,
    opened,
    result_urls,
    told_id,
)
from calotype.providers.kind import Kind
from calotype.providers.line import Line, Tools, bearer
from calotype.providers.plain import Plain
from calotype.providers.port import Job, ReferenceImage
from calotype.providers.reading import counted, job_id, rounded, text
from calotype.providers.verdicts import ended, on_create, unreadable

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


class Kie(Plain):
    """Speaks to one account at kie.ai."""

    def __init__(self, channel: Channel, upstream: Upstream, tools: Tools) -> None:
        self._facts = msgspec.convert(upstream.protocol, _Facts)
        self._line = Line(channel, upstream, tools.client, headers=bearer(channel))
        usual = self._line.base_url == upstream.base_url
        uploads = self._facts.upload_url if usual else self._line.base_url
        there = msgspec.structs.replace(
            channel, base_url=channel.options.get("upload_url") or uploads
        )
        self._uploads = Line(there, upstream, tools.client, headers=bearer(channel))
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
        answer, envelope = opened(answer)
        task_id = job_id(envelope.data, "taskId")
        if envelope.code == OK and task_id:
            return Accepted(f"{task_id} {self._clock()}", poll_after=self._facts.poll_seconds)
        return self._line.refuse(answer, code=envelope.code, detail=envelope.said)

    async def poll(self, job: Job, upstream_id: str) -> PollOutcome:
        """Read the task's record."""
        task_id, _, created = upstream_id.partition(" ")
        spent = (self._clock() - int(created)) / 1000 if created.isdecimal() else 0.0
        answer = await self._line.ask(f"{RECORD}?taskId={quote(task_id, safe='')}")
        if not isinstance(answer, Answer):
            return answer
        answer, envelope = opened(answer)
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

    async def _upload(
        self, job: Job, place: int, reference: ReferenceImage
    ) -> str | Refused | TryLater:
        """The URL of a reference handed over; that is free, and a second time overwrites it."""
        part = filed(reference, f"{job.reference or job.task}-{place}")
        path = [("uploadPath", UPLOAD_FOLDER), ("fileName", part.filename)]
        answer = await self._uploads.ask(
            UPLOAD,
            method="POST",
            body=form_body([*path, ("file", part)]),
            timeout_seconds=self._line.channel.timeout_seconds,
        )
        if not isinstance(answer, Answer):
            return answer
        answer, envelope = opened(answer)
        url = envelope.data.get("downloadUrl")
        if envelope.code == OK and is_url(url):
            return str(url)
        return self._uploads.beforehand(
            answer,
            code=envelope.code,
            detail=envelope.said,
            what="The upstream did not take a reference",
            fault=Fault.UPSTREAM,
        )

    def _told(
        self, job: Job, answer: Answer, record: Mapping[str, Any], *, pause: float
    ) -> PollOutcome:
        """What a record says."""
        state = record.get("state")
        if not isinstance(state, str):
            return unreadable("The upstream's record of the task names no state.")
        match self._line.upstream.states.get(state):
            case "done":
                return self._done(job, record)
            case "failed":
                return self._failed(answer, record)
            case word:
                percent = counted(record.get("progress"), most=100)
                return Running(
                    progress=None if percent is None else int(percent),
                    queued=word == "queued",
                    state=self._line.strange(state),
                    poll_after=pause,
                )

    def _done(self, job: Job, record: Mapping[str, Any]) -> Done | Failed:
        cost = self._cost(record)
        urls = result_urls(record.get("resultJson"))[: job.request.n]
        if not urls:
            message = "The upstream says that it is done and names no image."
            return Failed("upstream_malformed_response", message, cost_micro_usdc=cost)
        return Done(tuple(self._line.result(url) for url in urls), cost_micro_usdc=cost)

    def _failed(self, answer: Answer, record: Mapping[str, Any], *, said: str = "") -> Failed:
        """Why a task failed; by a heuristic where it was moderation, which no code tells."""
        said = text(record, "failMsg")[:LONGEST_TEXT] or said
        moderated = any(word in said.lower() for word in self._facts.moderation_words)
        outcome = ended(
            "policy" if moderated else "failed",
            detail=self._line.said(answer, said),
            cost=self._cost(record),
        )
        code = self._facts.fail_codes.get(code_of(record.get("failCode")))
        if code and not moderated:
            return msgspec.structs.replace(outcome, code=code, fault=Fault.REQUEST)
        return outcome

    def _cost(self, record: Mapping[str, Any]) -> int | None:
        """Micro-USDC, rounded half up."""
        spent = counted(record.get("creditsConsumed"), most=MOST_CREDITS)
        return None if spent is None else rounded(spent * self._facts.credit_micro_usdc)


KIND: Final = Kind(
    make=Kie,
    options={"upload_url": "where references are uploaded to; it is sent the key"},
    urls=("upload_url",),
)
