"""The Xenodia image API as an upstream: the hosted one, or another Calotype.

A generation is answered with a task (202) or, by older servers, with the image (200). Our own
server knows an ``Idempotency-Key`` again, so a channel that leads to one may be called
``idempotent``; the hosted API documents none.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final
from urllib.parse import quote

import msgspec

from calotype.domain.channel import Channel
from calotype.domain.outcomes import (
    Accepted,
    Done,
    Failed,
    ImageSource,
    PollOutcome,
    Running,
    SubmitOutcome,
)
from calotype.domain.wire import Upstream
from calotype.net.bodies import Body, form_body
from calotype.net.client import Answer
from calotype.providers.inline import filed, form_fields
from calotype.providers.kind import Kind
from calotype.providers.line import Line, Tools, bearer, is_success
from calotype.providers.made import kept, made_of
from calotype.providers.plain import Plain
from calotype.providers.port import Job
from calotype.providers.reading import fields, items, job_id, text, whole
from calotype.providers.verdicts import ended, unreadable

GENERATIONS: Final = "v1/images/generations"
TASKS: Final = "v1/tasks"
POLL_SECONDS: Final = 2.0
"""Between polls where the upstream recommends nothing."""
SHORTEST_POLL: Final = 0.2
LONGEST_POLL: Final = 30.0
LONGEST_CODE: Final = 256
MOST_COST: Final = 10**12
"""Micro-USDC; a larger figure is no cost of an image."""

_WORDS: Final = {"content_policy_violation": "policy", "cancelled": "cancelled"}
"""Code of a failure → the verdict that says it; every other one is ``failed``."""


class Xenodia(Plain):
    """Speaks to one server.

    It cannot be asked for a task by our reference: the key goes out with a whole request alone,
    which might buy. The API documents no callbacks, so none is asked for.
    """

    def __init__(self, channel: Channel, upstream: Upstream, tools: Tools) -> None:
        self._line = Line(channel, upstream, tools.client, headers=bearer(channel))
        self._failures = msgspec.convert(upstream.protocol["failures"], dict[str, str])

    async def submit(self, job: Job) -> SubmitOutcome:
        """Ask for the image under our own reference, once."""
        headers = {"Idempotency-Key": job.reference} if job.reference else {}
        answer = await self._line.create(GENERATIONS, body=_body(job), headers=headers)
        if not isinstance(answer, Answer):
            return answer
        document = fields(answer.document)
        if is_success(answer):
            if task_id := job_id(document, "task_id"):
                return Accepted(task_id, poll_after=_interval(answer, document))
            if urls := self._urls(job, document):
                if upstream_id := kept(urls, None):
                    return Accepted(upstream_id, poll_after=0.0)
                return Done(self._images(urls))
        return self._line.refuse(answer, code=_word(document), detail=_message(document))

    async def poll(self, job: Job, upstream_id: str) -> PollOutcome:
        """Read the task; of one that was answered at once, the id holds the URLs."""
        if made := made_of(upstream_id):
            return Done(self._images(made.urls), made.cost)
        answer = await self._line.ask(f"{TASKS}/{quote(upstream_id, safe='')}")
        return self._told(job, answer) if isinstance(answer, Answer) else answer

    def _told(self, job: Job, answer: Answer) -> PollOutcome:
        document = fields(answer.document)
        if not is_success(answer):
            return self._line.unread(answer, code=_word(document), detail=_message(document))
        state = document.get("state")
        if not isinstance(state, str):
            return unreadable("The upstream's answer about the task names no state.")
        match self._line.upstream.states.get(state.lower()):
            case "done":
                return self._done(job, document)
            case "failed":
                return self._failed(answer, document)
            case word:
                return Running(
                    progress=whole(document.get("progress"), most=100),
                    queued=word == "queued",
                    state=self._line.strange(state.lower()),
                    poll_after=_interval(answer, document),
                )

    async def cancel(self, job: Job, upstream_id: str) -> bool:  # noqa: ARG002 -- the port's
        """Ask for it; a server that knows no such call says 404 or 405, which is a no."""
        if made_of(upstream_id):
            return False
        path = f"{TASKS}/{quote(upstream_id, safe='')}/cancel"
        answer = await self._line.ask(path, method="POST")
        return isinstance(answer, Answer) and is_success(answer)

    def _done(self, job: Job, document: Mapping[str, Any]) -> Done | Failed:
        cost = _cost(document)
        urls = self._urls(job, fields(document.get("result")))
        if not urls:
            message = "The upstream says that it is done and names no image."
            return Failed("upstream_malformed_response", message, cost_micro_usdc=cost)
        return Done(self._images(urls), cost_micro_usdc=cost)

    def _failed(self, answer: Answer, document: Mapping[str, Any]) -> PollOutcome:
        """Why a task failed, by its error's code."""
        error = fields(document.get("error"))
        code = self._failures.get(_word(error), "upstream_failed")
        said = self._line.said(answer, _message(error))
        outcome = ended(_WORDS.get(code), detail=said, cost=_cost(document))
        return msgspec.structs.replace(outcome, code=code)

    def _images(self, urls: Iterable[str]) -> tuple[ImageSource, ...]:
        return tuple(self._line.result(url) for url in urls)

    def _urls(self, job: Job, result: Mapping[str, Any]) -> list[str]:
        """The images of a result, whose URLs may be relative to the upstream's host."""
        named = (text(item, "url") for item in items(result.get("data"))[: job.request.n])
        return [whole for url in named if url and (whole := self._whole_url(url))]

    def _whole_url(self, url: str) -> str:
        try:
            whole = self._line.joined(url)
        except ValueError:
            return ""
        return whole if whole.startswith(("https://", "http://")) else ""


def _body(job: Job) -> Body | dict[str, Any]:
    """A JSON document; a form where a reference has no URL of ours and is sent itself."""
    document: dict[str, Any] = {
        **job.fields,
        "model": job.upstream_model or job.request.model,
        "prompt": job.request.prompt,
        "n": job.request.n,
        "response_format": "url",
        "async": True,
    }
    urls = [reference.url for reference in job.references if reference.url]
    if len(urls) == len(job.references):
        return {**document, "image_input": urls} if urls else document
    parts = form_fields(document)
    for place, reference in enumerate(job.references, start=1):
        if reference.url:
            parts.append(("image_input", reference.url))
        else:
            parts.append(("image", filed(reference, f"reference-{place}")))
    return form_body(parts)


def _word(error: Mapping[str, Any]) -> str:
    code = text(error, "code")
    return code if len(code) <= LONGEST_CODE else ""


def _message(error: Mapping[str, Any]) -> str:
    return text(error, "message")[:1000]


def _cost(document: Mapping[str, Any]) -> int | None:
    """What a final task cost us there, in micro-USDC."""
    return whole(fields(document.get("billing")).get("actual_amount_micro_usdc"), most=MOST_COST)


def _interval(answer: Answer, document: Mapping[str, Any]) -> float:
    """Seconds until the next poll, as the upstream recommends, within reason."""
    recommended = whole(document.get("recommended_poll_interval_ms"), most=3_600_000)
    seconds = POLL_SECONDS if recommended is None else recommended / 1000
    if answer.retry_after is not None:
        seconds = answer.retry_after
    return min(LONGEST_POLL, max(SHORTEST_POLL, seconds))


KIND: Final = Kind(make=Xenodia)
