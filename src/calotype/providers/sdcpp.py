"""stable-diffusion.cpp's server, by its native API: jobs in a queue, images in the answer."""

from typing import Any, Final
from urllib.parse import quote

from calotype.domain.channel import Channel
from calotype.domain.outcomes import (
    Accepted,
    Done,
    ImageSource,
    PollOutcome,
    Running,
    SubmitOutcome,
    TryLater,
    Unknown,
)
from calotype.domain.wire import Upstream
from calotype.net.bodies import Inline
from calotype.net.client import Answer
from calotype.providers.kind import Kind
from calotype.providers.line import IMAGES_BYTES, Line, Tools
from calotype.providers.local import credential
from calotype.providers.plain import Plain
from calotype.providers.port import Job
from calotype.providers.reading import fields, items, job_id, string, text
from calotype.providers.verdicts import ended, on_create, unfit

_OK: Final = 200
_ACCEPTED: Final = 202
_LIST_BYTES: Final = 16 * 1024 * 1024
_IMAGES_SECONDS: Final = 300.0
"""Longest wait for an answer that may hold images."""


class SdCpp(Plain):
    """Speaks to one server."""

    free = True

    def __init__(self, channel: Channel, upstream: Upstream, tools: Tools) -> None:
        self._line = Line(channel, upstream, tools.client, headers=credential(channel))
        self._as_start = channel.options.get("references") == "init_image"
        self._capabilities: dict[str, Any] | None = None

    async def submit(self, job: Job) -> SubmitOutcome:
        """Queue a job."""
        if fault := await self._unfit(job):
            return fault
        answer = await self._line.create("sdcpp/v1/img_gen", body=self._body(job))
        if not isinstance(answer, Answer):
            self._capabilities = None  # it may come back as another
            return answer
        upstream_id = job_id(answer.document, "id")
        if answer.status in {_OK, _ACCEPTED} and upstream_id:
            return Accepted(upstream_id, self._pause)
        return self._line.refuse(answer, detail=_said(answer.document))

    async def poll(self, job: Job, upstream_id: str) -> PollOutcome:
        """How the job is doing; with its images once it is done."""
        answer = await self._line.ask(
            f"sdcpp/v1/jobs/{quote(upstream_id, safe='')}",
            max_bytes=IMAGES_BYTES,
            timeout_seconds=_IMAGES_SECONDS,
        )
        if isinstance(answer, TryLater):
            return answer
        if answer.status != _OK or not isinstance(answer.document, dict):
            outcome = self._line.unread(answer, detail=_said(answer.document))
            if isinstance(outcome, Unknown):
                self._capabilities = None  # it was started anew, perhaps as another
            return outcome
        said = text(answer.document, "status")
        state = self._line.upstream.states.get(said, "running")
        match state:
            case "queued" | "running":
                strange = self._line.strange(said)
                return Running(queued=state == "queued", state=strange, poll_after=self._pause)
            case "done":
                return Done(_images(answer)[: job.request.n])
            case _:
                return ended(state, detail=self._line.said(answer, _said(answer.document)))

    async def cancel(self, job: Job, upstream_id: str) -> bool:  # noqa: ARG002 -- the port's form
        """Stop a job that has not begun; one that has cannot be stopped."""
        path = f"sdcpp/v1/jobs/{quote(upstream_id, safe='')}/cancel"
        answer = await self._line.ask(path, method="POST", max_bytes=IMAGES_BYTES)
        if isinstance(answer, TryLater) or answer.status != _OK:
            return False
        return self._line.upstream.states.get(text(answer.document, "status")) == "cancelled"

    @property
    def _pause(self) -> float:
        return float(self._line.upstream.protocol["poll_seconds"])

    async def _unfit(self, job: Job) -> SubmitOutcome | None:
        """Why the server cannot draw this, as far as it tells what it can."""
        known = self._capabilities
        if known is not None and not (_other_model(job, known) or self._lack(job, known)):
            return None
        answer = await self._line.ask("sdcpp/v1/capabilities", max_bytes=_LIST_BYTES)
        if isinstance(answer, TryLater):
            return answer
        if answer.status != _OK or not isinstance(answer.document, dict):
            return self._line.beforehand(answer, detail=_said(answer.document))
        self._capabilities = answer.document
        if other := _other_model(job, answer.document):
            return on_create("model", detail=f"the server has loaded {other}")
        lack = self._lack(job, answer.document)
        return unfit(lack) if lack else None

    def _lack(self, job: Job, capabilities: dict[str, Any]) -> str:
        """What the server lacks for this job; empty when nothing."""
        if self._as_start and len(job.references) > 1:
            return "it takes one reference, as the image to start from"
        limits = fields(capabilities.get("limits"))
        for name, value in (
            ("width", job.fields.get("width", 0)),
            ("height", job.fields.get("height", 0)),
            ("batch_count", job.request.n),
        ):
            highest = limits.get(f"max_{name}")
            if isinstance(highest, int) and value > highest:
                return f"{name} may be {highest} at most there, not {value}"
        formats = items(capabilities.get("output_formats"))
        wanted = job.fields.get("output_format")
        if wanted and formats and wanted not in formats:
            return f"it cannot write {wanted}"
        return ""

    def _body(self, job: Job) -> dict[str, Any]:
        body = {**job.fields, "prompt": job.request.prompt, "batch_count": job.request.n}
        images = [Inline(each.open, each.size) for each in job.references]
        if images and self._as_start:
            body["init_image"] = images[0]
        elif images:
            body["ref_images"] = images
        return body


def _other_model(job: Job, capabilities: dict[str, Any]) -> str:
    """The model that the server has loaded, where it is not the one that the operator names."""
    loaded = [text(capabilities.get("model"), each) for each in ("name", "stem")]
    if job.upstream_model in {"", job.model.id, *loaded}:
        return ""
    return loaded[0] or loaded[1]


def _said(document: object) -> str:
    """What an error document says: a word, or an object with a message."""
    error = fields(document).get("error")
    said = [string(error) or text(error, "message"), text(document, "message")]
    return ": ".join(each for each in said if each)


def _images(answer: Answer) -> tuple[ImageSource, ...]:
    result = fields(fields(answer.document).get("result"))
    blobs = (answer.blob(text(each, "b64_json")) for each in items(result.get("images")))
    return tuple(blob for blob in blobs if blob is not None)


KIND: Final = Kind(
    make=SdCpp,
    needs_key=False,
    options={
        "references": (
            '"ref_images" (the default), for models that take references; "init_image", for those '
            "that start from an image"
        )
    },
)
