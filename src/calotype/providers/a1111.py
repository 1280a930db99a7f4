"""AUTOMATIC1111's web UI, Forge and SD.Next: the answer to the send holds the image.

One picture is drawn at a time, whoever asks. While the answer is waited for, the progress is
asked for; it is the whole server's, so it is shown only where the job in hand must be ours.
"""

import asyncio
from typing import Any, Final

from calotype.domain.channel import Channel
from calotype.domain.outcomes import (
    Done,
    PollOutcome,
    Refused,
    SubmitOutcome,
    TryLater,
    Unknown,
)
from calotype.domain.wire import Upstream
from calotype.net.bodies import Inline
from calotype.net.client import Answer
from calotype.providers.kind import Kind
from calotype.providers.line import Line, Tools
from calotype.providers.local import credential
from calotype.providers.plain import Plain
from calotype.providers.port import Job
from calotype.providers.reading import decoded, fields, text
from calotype.providers.verdicts import ended, unfit

_LISTED: Final = ("title", "model_name", "hash", "sha256", "filename")
"""What a checkpoint may be called by."""
_OF_A_PERSON: Final = "task("
"""So begin the names of jobs that somebody started in the server's own pages."""
_LIST_BYTES: Final = 16 * 1024 * 1024
_OK: Final = 200
_NOT_FOUND: Final = 404
_SERVER_FAULT: Final = 500


class A1111(Plain):
    """Speaks to one server."""

    free = True
    synchronous = True

    def __init__(self, channel: Channel, upstream: Upstream, tools: Tools) -> None:
        self._line = Line(channel, upstream, tools.client, headers=credential(channel))
        self._alone = channel.options.get("sole_user") == "true"
        self._in_flight = set[str]()
        self._interrupted = set[str]()
        self._interrupting = asyncio.Lock()
        self._checkpoints = set[str]()

    async def submit(self, job: Job) -> SubmitOutcome:
        """Draw, and wait for it."""
        if fault := self._unfit(job):
            return fault
        checkpoint = await self._checkpoint(job)
        if not isinstance(checkpoint, str):
            return checkpoint
        async with self._interrupting:  # one that is on its way may reach whatever is drawn then
            self._in_flight.add(job.task)
        watch = asyncio.create_task(self._watch(job))
        try:
            answer = await self._line.create(_path(job), body=self._body(job, checkpoint))
            if isinstance(answer, Unknown):
                await self._interrupt(job)
        finally:
            watch.cancel()
            await asyncio.wait([watch])
            self._in_flight.discard(job.task)
            interrupted = job.task in self._interrupted
            self._interrupted.discard(job.task)
        if interrupted and not isinstance(answer, Unknown):
            return ended("cancelled", detail="")
        return self._drawn(job, answer) if isinstance(answer, Answer) else answer

    async def poll(self, job: Job, upstream_id: str) -> PollOutcome:  # noqa: ARG002 -- the port's form
        """Nothing can be asked: no job is ever accepted without its image."""
        return Unknown("This upstream keeps no jobs to ask about.")

    async def cancel(self, job: Job, upstream_id: str) -> bool:  # noqa: ARG002 -- the port's form
        """Interrupt the server, if what it draws can only be this job."""
        return await self._interrupt(job)

    def _unfit(self, job: Job) -> SubmitOutcome | None:
        """Why a size cannot be drawn: the server would round it in silence."""
        multiple = self._line.upstream.protocol["multiple"]
        sides = [job.fields[side] for side in ("width", "height") if side in job.fields]
        if any(side % multiple for side in sides):
            return unfit(f"width and height must be multiples of {multiple}, not {sides}")
        return None

    async def _checkpoint(self, job: Job) -> str | SubmitOutcome:
        """The checkpoint to draw with; empty for the one that is loaded.

        One that the server does not have is not asked for: it would take another in silence.
        """
        wanted = job.upstream_model
        named = wanted not in {"", job.model.id}
        known = wanted in self._checkpoints or (self._checkpoints and not named)
        if not known and (fault := await self._list_checkpoints(named=named)):
            return fault
        if wanted in self._checkpoints:
            return wanted
        return unfit(f"the server has no checkpoint {wanted}") if named else ""

    async def _list_checkpoints(self, *, named: bool) -> Refused | TryLater | None:
        answer = await self._line.ask("sdapi/v1/sd-models", max_bytes=_LIST_BYTES)
        if isinstance(answer, TryLater):
            return answer
        if answer.status == _OK and isinstance(answer.document, list):
            self._checkpoints = {name for each in answer.document for name in _names(each)}
            return None
        if answer.status == _NOT_FOUND and not named:  # an imitator without the list
            return None
        return self._line.beforehand(answer, detail=_detail(answer.document))

    def _body(self, job: Job, checkpoint: str) -> dict[str, Any]:
        body: dict[str, Any] = {"prompt": self._harmless(job.request.prompt), **job.fields}
        if "negative_prompt" in body:
            body["negative_prompt"] = self._harmless(str(body["negative_prompt"]))
        if checkpoint:
            settings = body.get("override_settings", {})
            body["override_settings"] = {**settings, "sd_model_checkpoint": checkpoint}
        if job.reference:
            body["force_task_id"] = job.reference
        if job.references:
            body["init_images"] = [Inline(each.open, each.size) for each in job.references]
        return {**body, "batch_size": job.request.n}

    def _harmless(self, prompt: str) -> str:
        """Break the tags by which a server takes orders from a prompt; the words stay."""
        for command in self._line.upstream.protocol["prompt_commands"]:
            prompt = prompt.replace(command, f"{command[0]} {command[1:]}")
        return prompt

    def _drawn(self, job: Job, answer: Answer) -> SubmitOutcome:
        document = answer.document
        if answer.status != _OK:
            code = text(document, "error") if answer.status == _SERVER_FAULT else ""
            if code and f"{answer.status} {code}" not in self._line.upstream.create:
                code = "error"
            return self._line.refuse(answer, code=code, detail=_detail(document))
        images = fields(document).get("images")
        if not isinstance(images, list):
            return self._line.refuse(answer, detail=_detail(document))
        # A grid of all images may stand before them, and maps of extensions after them.
        surplus = len(images) - job.request.n
        first = _first_image(document.get("info"))
        if first is None or not 0 <= first <= surplus:
            first = max(0, surplus)
        blobs = [answer.blob(each) for each in images[first : first + job.request.n]]
        return Done(tuple(blob for blob in blobs if blob is not None))

    async def _watch(self, job: Job) -> None:
        """Report how far the server is, for as long as that can only be this job."""
        shown = 0
        while True:
            await asyncio.sleep(self._line.upstream.protocol["progress_seconds"])
            answer = await self._line.ask(
                "sdapi/v1/progress?skip_current_image=true", max_bytes=_LIST_BYTES
            )
            if isinstance(answer, TryLater):
                continue
            if answer.status == _NOT_FOUND:  # an imitator without the question
                return
            progress = fields(answer.document)
            percent = _percent(progress.get("progress"))
            if percent > shown and self._is_ours(job, progress):
                shown = percent
                job.report(percent)

    def _is_ours(self, job: Job, progress: dict[str, Any]) -> bool:
        """Whether what the server draws is this job, as far as it tells."""
        current = text(progress, "current_task"), text(progress.get("state"), "job")
        if job.reference and job.reference in current:
            return True
        if current[0] or current[1].startswith(_OF_A_PERSON):
            return False
        return self._in_flight == {job.task}

    async def _interrupt(self, job: Job) -> bool:
        """Stop the job, and count it as stopped before its half image can come back."""
        async with self._interrupting:
            if not self._alone or self._in_flight != {job.task}:
                return False
            if job.task in self._interrupted:
                return True
            self._interrupted.add(job.task)
            answer = await self._line.ask("sdapi/v1/interrupt", method="POST")
            if isinstance(answer, Answer) and answer.status == _OK:
                return True
            self._interrupted.discard(job.task)
            return False


def _path(job: Job) -> str:
    return "sdapi/v1/img2img" if job.references else "sdapi/v1/txt2img"


def _detail(document: object) -> str:
    """What an error document says."""
    said = (text(document, name) for name in ("detail", "errors", "error"))
    return next((each for each in said if each), "")


def _names(checkpoint: object) -> set[str]:
    return {name for each in _LISTED if (name := text(checkpoint, each))}


def _percent(progress: object) -> int:
    """Percent of a share of 1; 0 for what is none."""
    if not isinstance(progress, int | float) or not 0 <= progress <= 1:
        return 0
    return min(99, int(progress * 100))


def _first_image(info: object) -> int | None:
    """Where the images begin in the list, as the server's own account (JSON within JSON) says."""
    account = decoded(info) if isinstance(info, str) else None
    first = fields(account).get("index_of_first_image")
    return first if isinstance(first, int) else None


KIND: Final = Kind(
    make=A1111,
    needs_key=False,
    options={
        "sole_user": (
            '"true": nobody else uses the server, and one worker serves this channel; then a job '
            "that is cancelled, or not waited for any longer, is interrupted there"
        )
    },
)
