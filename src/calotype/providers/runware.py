"""Runware: every call is a list of tasks, each under a UUID that the caller chose.

So a send whose answer was lost is asked for by our own UUID, and the same UUID sent twice is
refused: a refusal for that says that the first send was taken. The id that we keep is the UUID,
and when it was sent: ``<taskUUID> <milliseconds>``. Images that came at once are in it as well, by
their URLs.
"""

import asyncio
import copy
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from calotype.domain.channel import Channel
from calotype.domain.outcomes import (
    Accepted,
    Done,
    Failed,
    ImageSource,
    PollOutcome,
    RecoverOutcome,
    Running,
    SubmitOutcome,
    TryLater,
    Unknown,
)
from calotype.domain.wire import Upstream, put
from calotype.net.client import Answer
from calotype.providers.inline import located
from calotype.providers.kind import Kind
from calotype.providers.line import IMAGES_BYTES, Line, Tools, bearer, is_success
from calotype.providers.made import kept, made_of
from calotype.providers.naming import named_by_the_operator
from calotype.providers.plain import Plain
from calotype.providers.port import Job
from calotype.providers.reading import fields, text
from calotype.providers.runware_tasks import INFERENCE, Codes, Complaint, Told, told_of
from calotype.providers.verdicts import ended, imageless, unreadable

QUESTION: Final = "getResponse"
TAKEN: Final = "taken"
"""The family of the code for a UUID that was sent before."""
ABSENT: Final = "absent"
"""The family of the codes for a task that is not known."""
PAUSES: Final = (0.3, 1.0, 2.0, 4.0, 7.0, 8.0, 8.0)
"""Seconds between questions for a send whose answer was lost: it may not be known at once."""
_INLINE: Final = ("imageBase64Data", "imageDataURI")


class _Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table ``protocol`` of the provider's file."""

    references: str
    poll_seconds: float
    longest_poll_seconds: float
    visible_after_seconds: float
    unknown_task: tuple[str, ...]
    endless: tuple[str, ...]
    families: dict[str, str]
    failures: dict[str, str]


class Runware(Plain):
    """Speaks to one account at Runware; its webhooks are not signed, so none is asked for."""

    def __init__(self, channel: Channel, upstream: Upstream, tools: Tools) -> None:
        self._facts = msgspec.convert(upstream.protocol, _Facts)
        self._line = Line(channel, upstream, tools.client, headers=bearer(channel))
        self._states = upstream.states
        self._codes = Codes(self._facts.families, self._facts.endless)
        self._clock = tools.clock

    async def submit(self, job: Job) -> SubmitOutcome:
        """Send the task, once, under our own UUID."""
        answer = await self._line.create("", body=[self._task(job)])
        if not isinstance(answer, Answer):
            return answer
        told = self._told(answer, job.reference)
        if is_success(answer) and told.items:
            return self._at_once(job, answer, told) or self._accepted(job)
        complaint = next(iter((*told.failures, *told.complaints)), Complaint())
        if complaint.family == TAKEN:
            return self._accepted(job)
        return self._line.refuse(answer, code=complaint.family, detail=complaint.said)

    async def poll(self, job: Job, upstream_id: str) -> PollOutcome:
        """Ask for the response to the task; what came at once, the id holds."""
        uuid, sent, made = (*upstream_id.split(" ", 2), "", "")[:3]
        if at_once := made_of(made):
            return Done(tuple(map(self._line.result, at_once.urls)), at_once.cost)
        spent = (self._clock() - int(sent)) / 1000 if sent.isdecimal() else None
        answer = await self._asked(uuid)
        if not isinstance(answer, Answer):
            return answer
        told = self._told(answer, uuid)
        return self._ended(job, answer, told) or self._unended(answer, told, spent)

    def _unended(self, answer: Answer, told: Told, spent: float | None) -> PollOutcome:
        """What an answer says of a task that has not ended, ``spent`` seconds after its send."""
        facts = self._facts
        pause = min(facts.longest_poll_seconds, max(facts.poll_seconds, (spent or 0.0) / 10))
        if told.complaints or not is_success(answer):
            outcome = self._complained(answer, told)
            young = spent is not None and spent < facts.visible_after_seconds
            if young and isinstance(outcome, Unknown):
                return Running(queued=True, poll_after=pause)
            return outcome
        if "data" not in fields(answer.document):
            return unreadable("The upstream's answer says nothing of any task.")
        words = (self._line.strange(text(item, "status")) for item in told.items)
        strange = next(filter(None, words), "")
        return Running(queued=not told.items, state=strange, poll_after=pause)

    async def recover(self, job: Job) -> RecoverOutcome:
        """Ask by our own UUID; that nothing is known of it only counts when said to the last."""
        outcome = await self._found(job)
        for pause in PAUSES:
            if not isinstance(outcome, TryLater):
                break
            await asyncio.sleep(pause)
            outcome = await self._found(job)
        return outcome

    def _task(self, job: Job) -> dict[str, Any]:
        task = copy.deepcopy(job.fields) | {
            "taskType": INFERENCE,
            "taskUUID": job.reference,
            "model": job.upstream_model,
            "positivePrompt": job.request.prompt,
            "numberResults": job.request.n,
            "outputType": "URL",
            "deliveryMethod": "async",
            "includeCost": True,
        }
        if job.references:
            put(task, self._facts.references, [located(image) for image in job.references])
        return task

    def _accepted(self, job: Job) -> Accepted:
        return Accepted(f"{job.reference} {self._clock()}", poll_after=self._facts.poll_seconds)

    def _at_once(self, job: Job, answer: Answer, told: Told) -> Accepted | Done | None:
        """The images, where they came with the answer to the send; None where they did not."""
        outcome = self._ended(job, answer, told)
        if not isinstance(outcome, Done):
            return None
        safe = [item for item in told.items if item.get("NSFWContent") is not True]
        urls = [url for item in safe if self._is_finished(item) and (url := _url(item))]
        prefix = f"{job.reference} {self._clock()} "
        if len(urls[: job.request.n]) == len(outcome.images):
            upstream_id = kept(urls[: job.request.n], told.cost, prefix=prefix)
            if upstream_id is not None:
                return Accepted(upstream_id, poll_after=0.0)
        return outcome

    def _complained(self, answer: Answer, told: Told) -> TryLater | Failed | Unknown:
        """What a question says that was answered with an error, of the task's own or of another."""
        complaint = next(iter(told.complaints), Complaint())
        telling = complaint.named or complaint.family == ABSENT
        code = complaint.family if telling else ""
        return self._line.unread(answer, code=code, detail=complaint.said)

    async def _asked(self, uuid: str) -> Answer | TryLater:
        question = [{"taskType": QUESTION, "taskUUID": uuid}]
        return await self._line.ask("", method="POST", body=question, max_bytes=IMAGES_BYTES)

    async def _found(self, job: Job) -> RecoverOutcome:
        answer = await self._asked(job.reference)
        if not isinstance(answer, Answer):
            return Unknown(f"The upstream could not be asked about the task: {answer.message}")
        told = self._told(answer, job.reference)
        if told.items or told.failures:
            return msgspec.structs.replace(self._accepted(job), poll_after=0.0)
        codes = {complaint.code for complaint in told.complaints}
        if codes and codes <= set(self._facts.unknown_task):
            return TryLater("upstream_unavailable", "The upstream knows nothing of the task.")
        said = self._line.said(answer, " ".join(sorted(codes)))
        return Unknown(f"The upstream does not say what became of the task: {said}")

    def _told(self, answer: Answer, uuid: str) -> Told:
        return told_of(
            answer.document,
            uuid,
            states=self._states,
            codes=self._codes,
            status=answer.status,
        )

    def _ended(self, job: Job, answer: Answer, told: Told) -> Done | Failed | None:
        """How the task ended; None while an image is still to come."""
        finished = [item for item in told.items if self._is_finished(item)]
        wanted = len(told.items) if told.failures else max(len(told.items), job.request.n)
        if len(finished) < wanted or not (finished or told.failures):
            return None
        safe = [item for item in finished if item.get("NSFWContent") is not True]
        images = [image for item in safe if (image := self._image(answer, item)) is not None]
        if images:
            return Done(tuple(images[: job.request.n]), cost_micro_usdc=told.cost)
        if len(safe) < len(finished):
            return ended("policy", detail=self._line.said(answer), cost=told.cost)
        if told.failures:
            complaint = told.failures[0]
            said = self._line.said(answer, complaint.said)
            return ended(self._facts.failures.get(complaint.family), detail=said, cost=told.cost)
        return imageless(told.cost)

    def _is_finished(self, item: Mapping[str, Any]) -> bool:
        """Whether nothing more comes of an item; some have no state and just the image."""
        status = item.get("status")
        if status is None:
            return any(item.get(name) for name in ("imageURL", *_INLINE))
        return isinstance(status, str) and self._states.get(status) == "done"

    def _image(self, answer: Answer, item: Mapping[str, Any]) -> ImageSource | None:
        if url := _url(item):
            return self._line.result(url)
        blobs = (answer.blob(item.get(name)) for name in _INLINE)
        return next((blob for blob in blobs if blob is not None), None)


def _url(item: Mapping[str, Any]) -> str:
    """Where an image lies; empty where that is not told."""
    url = item.get("imageURL")
    if not isinstance(url, str) or not url.isprintable():
        return ""
    return url if url.startswith(("https://", "http://")) else ""


KIND: Final = Kind(make=Runware, narrow=named_by_the_operator)
