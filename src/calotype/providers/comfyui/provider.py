"""ComfyUI: a graph is queued under our own id, asked about by it, and its files are fetched."""

import asyncio
import uuid
import zlib
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

from calotype.domain.channel import Channel
from calotype.domain.outcomes import (
    Accepted,
    Done,
    ImageSource,
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
from calotype.providers.comfyui.feed import Feed
from calotype.providers.comfyui.jobs import Jobs, said_in
from calotype.providers.comfyui.workflow import (
    Workflow,
    WorkflowFault,
    folder_of,
    load_workflow,
    named,
)
from calotype.providers.line import Line, Tools
from calotype.providers.local import beforehand, credential, fields, items, job_id, text
from calotype.providers.port import Job, ReferenceImage
from calotype.providers.verdicts import on_create, on_read, unfit

_OK: Final = 200
_REMEMBERED: Final = 1000
"""Cancelled jobs that are remembered."""
_SUBFOLDER: Final = "calotype"
"""Among the server's inputs, where our references lie."""
_UPLOAD_SECONDS: Final = 120.0
_SEEDS: Final = 2**31 - 1
_ENDINGS: Final = {"image/jpeg": "jpg", "image/png": "png", "image/webp": "webp"}
_FOLDERS: Final = frozenset({"output", "temp"})


class ComfyUI:
    """Speaks to one server."""

    free = True
    synchronous = False

    def __init__(self, channel: Channel, upstream: Upstream, tools: Tools) -> None:
        headers = credential(channel)
        self._line = Line(channel, upstream, tools.client, headers=headers)
        self._folder = folder_of(channel)
        # Of this process alone: a server keeps one WebSocket for each.
        self._client_id = uuid.uuid4().hex
        socket = self._line.url(f"ws?clientId={self._client_id}")
        self._feed = Feed(lambda: tools.client.websocket(socket, headers=headers), tools.clock)
        self._jobs = Jobs(self._line)
        self._cancelled: dict[str, None] = {}

    async def submit(self, job: Job) -> SubmitOutcome:
        """Upload the references and queue the graph."""
        try:
            workflow = await asyncio.to_thread(self._workflow, job)
        except WorkflowFault as fault:
            return on_create("model", detail=str(fault))
        values = _values(job, workflow)
        if lack := workflow.lack(values, references=len(job.references)):
            return unfit(lack)
        images = list[str]()
        for index, reference in enumerate(job.references, start=1):
            image = await self._upload(job, reference, index)
            if not isinstance(image, str):
                return image
            images.append(image)
        return await self._queue(job, workflow.filled(values, images), workflow.slots.save)

    async def poll(self, job: Job, upstream_id: str) -> PollOutcome:
        """How the job is doing; with its images once it is done."""
        prompt_id, _, save = upstream_id.partition(" ")
        seen = await self._jobs.find(prompt_id)
        if isinstance(seen, TryLater):
            return seen
        if seen is not None and seen.state in {"queued", "running"}:
            return Running(
                progress=self._feed.percent(prompt_id),
                queued=seen.state == "queued",
                state=seen.strange,
                poll_after=self._pause,
            )
        self._feed.forget(prompt_id)
        if seen is None:
            if prompt_id in self._cancelled:  # one that had not begun leaves no trace
                return on_read("cancelled", detail="")
            return Unknown("The upstream no longer knows the job; it may have been restarted.")
        if seen.state == "done":
            return Done(self._images(seen.outputs, save)[: job.request.n])
        return on_read(seen.state, detail=seen.error)

    async def recover(self, job: Job) -> RecoverOutcome:
        """Ask by our own id, which the server took for the job's."""
        if not job.reference:
            return Unknown("The job was sent without an id of ours.")
        seen = await self._jobs.find(job.reference)
        if isinstance(seen, TryLater):
            return Unknown(f"The upstream could not be asked about the job: {seen.message}")
        if seen is None:
            return TryLater("upstream_unavailable", "The upstream knows nothing of the job.")
        try:
            save = (await asyncio.to_thread(self._workflow, job)).slots.save
        except WorkflowFault:
            save = ""
        return Accepted(f"{job.reference} {save}".rstrip(), 0)

    async def cancel(self, job: Job, upstream_id: str) -> bool:  # noqa: ARG002 -- the port's form
        """Take it out of the queue, or interrupt it; never another one."""
        prompt_id = upstream_id.partition(" ")[0]
        stopped = await self._jobs.cancel(prompt_id)
        if stopped:
            self._cancelled[prompt_id] = None
            while len(self._cancelled) > _REMEMBERED:
                del self._cancelled[next(iter(self._cancelled))]
        return stopped

    def callback(self, headers: Mapping[str, str], body: bytes) -> str | None:  # noqa: ARG002 -- the port's form
        """It sends none."""
        return None

    async def close(self) -> None:
        """Close the WebSocket."""
        await self._feed.close()

    @property
    def _pause(self) -> float:
        return float(self._line.upstream.protocol["poll_seconds"])

    def _workflow(self, job: Job) -> Workflow:
        name, _ = named(job.upstream_model or job.model.id)
        return load_workflow(self._folder, name, references=len(job.references))

    async def _upload(
        self, job: Job, reference: ReferenceImage, index: int
    ) -> str | Refused | TryLater:
        """Put a reference among the server's inputs; what a loader calls it there."""
        ending = _ENDINGS[reference.content_type]
        name = f"{job.reference or job.task}-{index}.{ending}"
        part = FilePart(name, reference.content_type, reference.size, reference.open)
        form = form_body(
            [("image", part), ("type", "input"), ("subfolder", _SUBFOLDER), ("overwrite", "true")]
        )
        answer = await self._line.ask(
            "upload/image", method="POST", body=form, timeout_seconds=_UPLOAD_SECONDS
        )
        if isinstance(answer, TryLater):
            return answer
        if answer.status == _OK and text(answer.document, "name"):
            folder = text(answer.document, "subfolder")
            return f"{folder}/{text(answer.document, 'name')}".lstrip("/")
        return beforehand(self._line, answer, said_in(answer.document))

    async def _queue(self, job: Job, graph: dict[str, Any], save: str) -> SubmitOutcome:
        body: dict[str, Any] = {"prompt": graph, "client_id": self._client_id}
        if job.reference:
            body["prompt_id"] = job.reference
            self._feed.follow(job.reference)
        answer = await self._line.create("prompt", body=body)
        prompt_id = ""
        if isinstance(answer, Answer) and answer.status == _OK:
            prompt_id = job_id(answer.document, "prompt_id")
        if prompt_id != job.reference:
            self._feed.forget(job.reference)
        if prompt_id:
            self._feed.follow(prompt_id)  # an older server names jobs itself
            return Accepted(f"{prompt_id} {save}", self._pause)
        if not isinstance(answer, Answer):
            return answer
        return self._line.refuse(
            answer, code=_code(answer.document), detail=said_in(answer.document)
        )

    def _images(self, outputs: dict[str, Any], save: str) -> tuple[ImageSource, ...]:
        """The files of the node that saves; of every node where it is not known."""
        nodes = [outputs.get(save)] if save else list(outputs.values())
        files = [file for node in nodes for file in items(fields(node).get("images"))]
        return tuple(
            self._line.own_result(f"view?{urlencode(where)}")
            for where in map(_where, files)
            if where is not None
        )


def _values(job: Job, workflow: Workflow) -> dict[str, Any]:
    """Slot → value."""
    values: dict[str, Any] = {**job.fields, "prompt": job.request.prompt}
    if "seed" not in values and workflow.has("seed"):
        # Else the template's own would draw the same picture for ever; the same for a re-send.
        values["seed"] = zlib.crc32((job.reference or job.task).encode()) & _SEEDS
    if job.request.n > 1 or workflow.has("batch"):
        values["batch"] = job.request.n
    _, checkpoint = named(job.upstream_model)
    if checkpoint:
        values["checkpoint"] = checkpoint
    return values


def _where(file: object) -> dict[str, str] | None:
    """Which file of the server an entry of its history names."""
    where = {name: text(file, name) for name in ("filename", "subfolder", "type")}
    return where if where["filename"] and where["type"] in _FOLDERS else None


def _code(document: object) -> str:
    """The type of the first fault in a node's inputs, else that of the whole."""
    for node in fields(fields(document).get("node_errors")).values():
        for error in items(fields(node).get("errors")):
            if kind := text(error, "type"):
                return kind
    return text(fields(document).get("error"), "type")
