"""OpenRouter: its Images API, and for models that draw in chats alone, a chat of one message."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from calotype.domain.channel import Channel
from calotype.domain.money import MICRO
from calotype.domain.outcomes import Failed, SubmitOutcome
from calotype.domain.wire import Upstream
from calotype.net.bodies import Body, json_body
from calotype.net.client import Answer
from calotype.providers.images_api import ImagesApi, is_last
from calotype.providers.inline import located
from calotype.providers.kind import Kind
from calotype.providers.line import Tools, bearer
from calotype.providers.port import Job, ReferenceImage
from calotype.providers.reading import counted, fields, items, rounded, text

IMAGES: Final = "images"
CHAT: Final = "chat/completions"
MODALITIES: Final = "modalities"
"""Among the fields of a model that draws in chats."""
STREAM: Final = "stream"
MODERATION: Final = "moderation"
"""Our own code of an error that tells what was flagged."""

_PARTIAL: Final = "image_generation.partial_image"
_USUAL_DRAFTS: Final = 3
"""OpenRouter does not say how many will come; OpenAI's own most."""


class OpenRouter(ImagesApi):
    """Speaks it to one channel.

    Raises:
        ValueError: an option has a value that there is not.

    """

    def __init__(self, channel: Channel, upstream: Upstream, tools: Tools) -> None:
        super().__init__(channel, upstream, tools, headers=bearer(channel))
        streams = channel.options.get(STREAM, "false")
        if streams not in {"true", "false"}:
            raise ValueError(f"options.{STREAM}: '{streams}' is not known; write 'true' or 'false'")
        self._stream = streams == "true"

    def _path(self, job: Job) -> str:
        return CHAT if _chats(job) else IMAGES

    def _body(self, job: Job) -> Body:
        references = [_written(image) for image in job.references]
        if _chats(job):
            content = [{"type": "text", "text": job.request.prompt}, *references]
            message = {"role": "user", "content": content}
            return json_body(job.fields | {"model": job.upstream_model, "messages": [message]})
        document = self._document(job)
        if references:
            document["input_references"] = references
        if self._streams(job):
            document[STREAM] = True
        return json_body(document)

    def _streams(self, job: Job) -> bool:
        return self._stream and job.request.n == 1 and not _chats(job)

    def _watch(self, job: Job) -> Callable[[Any], bool] | None:
        if not self._streams(job):
            return None

        def last(event: Any) -> bool:
            index = event.get("partial_image_index")
            if event.get("type") == _PARTIAL and isinstance(index, int):
                drawn = min(max(index, 0) + 1, _USUAL_DRAFTS)
                job.report(100 * drawn // (_USUAL_DRAFTS + 1))
            return is_last(event)

        return last

    def _read(self, job: Job, answer: Answer) -> SubmitOutcome:
        if _chats(job):
            answer = msgspec.structs.replace(answer, document=_as_images(answer.document))
        outcome = super()._read(job, answer)
        if isinstance(outcome, Failed):
            return msgspec.structs.replace(outcome, cost_micro_usdc=self._cost(job, answer))
        return outcome

    def _cost(self, job: Job, answer: Answer) -> int | None:  # noqa: ARG002 -- the family's
        usd = counted(fields(fields(answer.document).get("usage")).get("cost"))
        return None if usd is None else rounded(usd * MICRO)

    def _told(
        self, table: Mapping[str, str], answer: Answer, faults: list[Mapping[str, Any]]
    ) -> tuple[str, str]:
        codes = [code for fault in faults for code in _codes(fault)]
        found = next((code for code in codes if f"{answer.status} {code}" in table), "")
        said = (text(fault, "message") for fault in faults)
        return found, next(filter(None, said), "")


def _chats(job: Job) -> bool:
    return MODALITIES in job.fields


def _written(image: ReferenceImage) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": located(image)}}


def _codes(fault: Mapping[str, Any]) -> list[str]:
    """The codes of an error, the most telling first; its own is the status as a number."""
    metadata = fields(fault.get("metadata"))
    flagged = MODERATION if metadata.keys() & {"reasons", "flagged_input"} else None
    codes = (metadata.get("error_type"), flagged, fault.get("code"), fault.get("type"))
    return [code for code in codes if isinstance(code, str)]


def _as_images(document: object) -> object:
    """A chat's answer as the Images API would give it: its image, or why there is none.

    Where there are several it is the last, as drafts come before what they are for.
    """
    choices = fields(document).get("choices")
    if not isinstance(document, dict) or not isinstance(choices, list):
        return document
    data: list[dict[str, Any]] = []
    error = document.get("error")
    for choice in map(fields, choices):
        message = fields(choice.get("message"))
        for image in items(message.get("images")):
            url = fields(fields(image).get("image_url")).get("url")
            if isinstance(url, str):
                data.append({"url": url})
        error = error or choice.get("error") or _why(choice, message)
    return document | {"data": data[-1:], "error": error}


def _why(choice: Mapping[str, Any], message: Mapping[str, Any]) -> dict[str, Any]:
    """How a message that holds no image ended, as an error."""
    reason, refusal = choice.get("finish_reason"), message.get("refusal")
    return {
        "code": choice.get("native_finish_reason"),
        "type": "refusal" if refusal else reason,
        "message": refusal or message.get("content") or reason,
    }


KIND: Final = Kind(
    make=OpenRouter,
    options={
        STREAM: (
            "'true' shows progress by drafts of the image, where OpenAI draws; unverified: whether "
            "they cost more. 'false' is the default"
        )
    },
)
