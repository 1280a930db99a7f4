"""Runware: every call is a list of tasks, each under a UUID that the caller chose.

So a send whose answer was lost is asked for by our own UUID, and the same UUID sent twice is
refused: a refusal for that says that the first send was taken. The id that we keep is the UUID,
and when it was sent: ``<taskUUID> <milliseconds>``.
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
    Fault,
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
from calotype.providers.images_api import bearer
from calotype.providers.inline import located
from calotype.providers.kind import Kind
from calotype.providers.line import IMAGES_BYTES, Line, Tools
from calotype.providers.port import Job
from calotype.providers.runware_tasks import INFERENCE, Complaint, Told, family_of, told_of
from calotype.providers.verdicts import on_read

QUESTION: Final = "getResponse"
TAKEN: Final = "taken"
"""The family of the code for a UUID that was sent before."""
_INLINE: Final = ("imageBase64Data", "imageDataURI")


class _Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table ``protocol`` of the provider's file."""

    references: str
    poll_seconds: float
    longest_poll_seconds: float
    look_again_seconds: float
    unknown_task: tuple[str, ...]
    families: dict[str, str]
    failures: dict[str, str]


class Runware:
    """Speaks to one account at Runware."""

    free = False
    synchronous = False

    def __init__(self, channel: Channel, upstream: Upstream, tools: Tools) -> None:
        self._facts = msgspec.convert(upstream.protocol, _Facts)
        self._line = Line(channel, upstream, tools.client, headers=bearer(channel))
        self._states = upstream.states
        self._clock = tools.clock

    async def submit(self, job: Job) -> SubmitOutcome:
        """Send the task, once, under our own UUID."""
        answer = await self._line.create("", body=[self._task(job)])
        if not isinstance(answer, Answer):
            return answer
        told = self._told(answer, job.reference)
        if _is_success(answer) and told.items:
            ended = self._ended(job, answer, told)
            return ended if isinstance(ended, Done) else self._accepted(job)
        complaint = next(iter((*told.failures, *told.complaints)), Complaint("", ""))
        family = family_of(complaint.code, self._facts.families)
        if family == TAKEN:
            return self._accepted(job)
        return self._line.refuse(answer, code=family, detail=complaint.said or complaint.code)

    async def poll(self, job: Job, upstream_id: str) -> PollOutcome:
        """Ask for the response to the task."""
        uuid, _, sent = upstream_id.partition(" ")
        answer = await self._asked(uuid)
        if not isinstance(answer, Answer):
            return answer
        told = self._told(answer, uuid)
        ended = self._ended(job, answer, told)
        if ended is not None:
            return ended
        if told.complaints or not _is_success(answer):
            complaint = next(iter(told.complaints), Complaint("", ""))
            family = family_of(complaint.code, self._facts.families)
            return self._line.unread(answer, code=family, detail=complaint.said or complaint.code)
        if not isinstance(answer.document, dict) or "data" not in answer.document:
            message = "The upstream's answer says nothing of any task."
            return TryLater("upstream_malformed_response", message, fault=Fault.UPSTREAM)
        spent = (self._clock() - int(sent)) / 1000 if sent.isdecimal() else 0.0
        facts = self._facts
        pause = min(facts.longest_poll_seconds, max(facts.poll_seconds, spent / 10))
        return Running(queued=not told.items, poll_after=pause)

    async def recover(self, job: Job) -> RecoverOutcome:
        """Ask by our own UUID; that nothing is known of it only counts when said twice."""
        outcome = await self._found(job)
        if isinstance(outcome, TryLater):
            await asyncio.sleep(self._facts.look_again_seconds)
            outcome = await self._found(job)
        return outcome

    async def cancel(self, job: Job, upstream_id: str) -> bool:  # noqa: ARG002 -- the port's
        """No: there is no such call."""
        return False

    def callback(self, headers: Mapping[str, str], body: bytes) -> str | None:  # noqa: ARG002 -- the port's
        """None: its webhooks are not signed, so none is asked for."""
        return None

    async def close(self) -> None:
        """Nothing of its own is open."""

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
        return told_of(answer.document, uuid, states=self._states, status=answer.status)

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
            return self._failed("policy", self._line.said(answer), told)
        if told.failures:
            complaint = told.failures[0]
            family = family_of(complaint.code, self._facts.families)
            said = self._line.said(answer, complaint.said or complaint.code)
            return self._failed(self._facts.failures.get(family, "failed"), said, told)
        message = "The upstream says that it is done and has no image."
        return Failed("upstream_malformed_response", message, cost_micro_usdc=told.cost)

    def _failed(self, word: str, said: str, told: Told) -> Failed:
        outcome = on_read(word, detail=said)
        if not isinstance(outcome, Failed):
            outcome = Failed("upstream_failed", f"The upstream failed at it: {said}")
        return msgspec.structs.replace(outcome, cost_micro_usdc=told.cost)

    def _is_finished(self, item: Mapping[str, Any]) -> bool:
        """Whether nothing more comes of an item; some have no state and just the image."""
        status = item.get("status")
        if status is None:
            return any(item.get(name) for name in ("imageURL", *_INLINE))
        return isinstance(status, str) and self._states.get(status) == "done"

    def _image(self, answer: Answer, item: Mapping[str, Any]) -> ImageSource | None:
        url = item.get("imageURL")
        if isinstance(url, str) and url.startswith(("https://", "http://")):
            return self._line.result(url)
        blobs = (answer.blob(item.get(name)) for name in _INLINE)
        return next((blob for blob in blobs if blob is not None), None)


def _is_success(answer: Answer) -> bool:
    return 200 <= answer.status < 300  # noqa: PLR2004 -- what HTTP calls success


KIND: Final = Kind(make=Runware)
