"""Google's Gemini API: ``generateContent`` of a model that draws, answered with the image itself.

There is no job to ask about: an answer that is lost stays lost, and may have been paid. An answer
of 200 without an image is a failure, and says why.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Final, Literal
from urllib.parse import quote

import msgspec

from calotype.domain.channel import Channel
from calotype.domain.outcomes import Done, Failed, Refused, SubmitOutcome, Unknown
from calotype.domain.wire import Upstream
from calotype.net.answers import LONGEST_WAIT
from calotype.net.bodies import Inline, json_body
from calotype.net.client import Answer
from calotype.providers.images_api import counted, rounded
from calotype.providers.kind import Kind
from calotype.providers.line import Line, Tools
from calotype.providers.port import Job, ReferenceImage
from calotype.providers.verdicts import on_create, on_read

SAFETY: Final = "safety"
THRESHOLDS: Final = (
    "OFF",
    "BLOCK_NONE",
    "BLOCK_ONLY_HIGH",
    "BLOCK_MEDIUM_AND_ABOVE",
    "BLOCK_LOW_AND_ABOVE",
)
SPENT_QUOTA: Final = "spent_quota"
"""Our own code, in the table ``create``, of a limit that waiting does not help against."""

_NO_JOB: Final = "The upstream has no jobs that it could be asked about."
_DURATION: Final = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?(?=s\Z)")

_Word = Literal["policy", "failed", "account"]


class Prices(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Micro-USD that a token of a model costs."""

    prompt: float
    """Of text and references alike."""
    text: float
    """Thoughts among it."""
    image: float


class _Facts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The table ``protocol`` of the provider's file."""

    api_version: str
    request_bytes: int
    safety_categories: tuple[str, ...]
    spent_quotas: tuple[str, ...]
    block_reasons: dict[str, _Word]
    finish_reasons: dict[str, _Word]
    prices: dict[str, Prices]


class Gemini:
    """Speaks it to one channel.

    Raises:
        ValueError: an option has a value that there is not.
        msgspec.ValidationError: the provider's file is not what is read here.

    """

    free = False
    synchronous = True

    def __init__(self, channel: Channel, upstream: Upstream, tools: Tools) -> None:
        key = channel.api_key.value if channel.api_key else ""
        self._line = Line(channel, upstream, tools.client, headers={"x-goog-api-key": key})
        self._facts = msgspec.convert(upstream.protocol, _Facts)
        self._safety = channel.options.get(SAFETY, "")
        if self._safety and self._safety not in THRESHOLDS:
            raise ValueError(
                f"options.{SAFETY}: '{self._safety}' is not known; write one of "
                f"{', '.join(THRESHOLDS)}"
            )

    async def submit(self, job: Job) -> SubmitOutcome:
        """Send the request and read the image from its answer."""
        body = json_body(self._document(job))
        if body.length > self._facts.request_bytes:
            return Refused(
                "upstream_rejected",
                f"The reference images are too large together: the upstream takes requests of at "
                f"most {self._facts.request_bytes} bytes; give fewer, or smaller ones.",
            )
        model = quote(job.upstream_model, safe="")
        path = f"{self._facts.api_version}/models/{model}:generateContent"
        answer = await self._line.create(path, body=body)
        if not isinstance(answer, Answer):
            return answer
        if not 200 <= answer.status < 300:  # noqa: PLR2004 -- what HTTP calls success
            return self._refused(answer)
        return self._read(job, answer)

    async def poll(self, job: Job, upstream_id: str) -> Unknown:  # noqa: ARG002 -- the port's
        """There is nothing to ask."""
        return Unknown(_NO_JOB)

    async def recover(self, job: Job) -> Unknown:  # noqa: ARG002 -- the port's
        """There is nothing to ask."""
        return Unknown(_NO_JOB)

    async def cancel(self, job: Job, upstream_id: str) -> bool:  # noqa: ARG002 -- the port's
        """Nothing can be stopped: hanging up loses the image and not the bill."""
        return False

    def callback(self, headers: Mapping[str, str], body: bytes) -> str | None:  # noqa: ARG002 -- the port's
        """Nobody calls back."""
        return None

    async def close(self) -> None:
        """The client is the process's, not ours."""

    def _document(self, job: Job) -> dict[str, Any]:
        parts = [{"text": job.request.prompt}, *map(_part, job.references)]
        document = {"contents": [{"role": "user", "parts": parts}], **job.fields}
        if self._safety:
            document["safetySettings"] = [
                {"category": category, "threshold": self._safety}
                for category in self._facts.safety_categories
            ]
        return document

    def _read(self, job: Job, answer: Answer) -> SubmitOutcome:
        """The last image that is no draft, or why there is none."""
        document = _object(answer.document)
        candidates = _objects(document.get("candidates"))
        blocked = _text(document.get("promptFeedback"), "blockReason")
        if not candidates and not blocked:
            return Unknown("The upstream answered with neither an image nor a reason.")
        cost = self._cost(job, document)
        parts = [
            part
            for candidate in candidates
            for part in _objects(_object(candidate.get("content")).get("parts"))
            if not part.get("thought")
        ]
        written = [data for part in parts if (data := _text(part.get("inlineData"), "data"))]
        if written:
            image = answer.blob(written[-1])
            if image is not None:
                return Done((image,), cost)
            message = "The upstream's answer holds an image that is no base64."
            return Failed("upstream_malformed_response", message, cost_micro_usdc=cost)
        if blocked:
            word = self._facts.block_reasons.get(blocked, "policy")
            return self._ended(word, self._line.said(answer, blocked), cost)
        reason = _text(candidates[0], "finishReason")
        word = self._facts.finish_reasons.get(reason, "failed")
        words = _text(candidates[0], "finishMessage") or " ".join(
            _text(part, "text") for part in parts
        )
        return self._ended(word, self._line.said(answer, f"{reason} {words}"), cost)

    def _ended(self, word: _Word, detail: str, cost: int | None) -> SubmitOutcome:
        """The outcome of a run that ended without an image, and may have been billed."""
        outcome = (
            on_create(word, detail=detail) if word == "account" else on_read(word, detail=detail)
        )
        match outcome:
            case Refused():
                return Failed(outcome.code, outcome.message, outcome.fault, cost)
            case Failed():
                return msgspec.structs.replace(outcome, cost_micro_usdc=cost)
        return outcome

    def _refused(self, answer: Answer) -> SubmitOutcome:
        """By the most telling code that the table has; how long to wait may stand in the body."""
        error = _object(_object(answer.document).get("error"))
        details = _objects(error.get("details"))
        codes = [_text(detail, "reason") for detail in details]
        if any(self._is_spent(detail) for detail in details):
            codes.append(SPENT_QUOTA)
        codes.append(_text(error, "status"))
        table = self._line.upstream.create
        code = next((each for each in codes if f"{answer.status} {each}" in table), "")
        if answer.retry_after is None:
            waits = (_seconds(_text(detail, "retryDelay")) for detail in details)
            wait = next((each for each in waits if each is not None), None)
            answer = msgspec.structs.replace(answer, retry_after=wait)
        return self._line.refuse(answer, code=code, detail=_text(error, "message"))

    def _is_spent(self, detail: Mapping[str, Any]) -> bool:
        names = [_text(each, "quotaId") for each in _objects(detail.get("violations"))]
        return any(part in name for name in names for part in self._facts.spent_quotas)

    def _cost(self, job: Job, document: Mapping[str, Any]) -> int | None:
        """By tokens; None for a model without prices, or where tokens are not told in full."""
        prices = self._facts.prices.get(job.model.id)
        usage = _object(document.get("usageMetadata"))
        prompt = counted(usage.get("promptTokenCount"))
        made = counted(usage.get("candidatesTokenCount", 0))
        thoughts = counted(usage.get("thoughtsTokenCount", 0))
        if prices is None or prompt is None or made is None or thoughts is None:
            return None
        kinds = _objects(usage.get("candidatesTokensDetails"))
        if made and not kinds:
            return None
        images = Decimal(0)
        for kind in kinds:
            if kind.get("modality") == "IMAGE":
                images += counted(kind.get("tokenCount")) or 0
        words = max(made - images, Decimal(0)) + thoughts
        told = ((prompt, prices.prompt), (words, prices.text), (images, prices.image))
        return rounded(sum((tokens * Decimal(str(each)) for tokens, each in told), Decimal(0)))


def _part(image: ReferenceImage) -> dict[str, Any]:
    data = Inline(image.open, image.size)
    return {"inlineData": {"mimeType": image.content_type, "data": data}}


def _object(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _objects(value: object) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _text(value: object, name: str) -> str:
    """A field of an object that holds text; empty where there is none."""
    found = _object(value).get(name)
    return found if isinstance(found, str) else ""


def _seconds(duration: str) -> float | None:
    """Of a duration as Google writes it, such as ``13.5s``; None for anything else."""
    found = _DURATION.match(duration)
    return min(float(found[0]), LONGEST_WAIT) if found else None


KIND: Final = Kind(
    make=Gemini,
    options={
        SAFETY: (
            "OFF, BLOCK_NONE, BLOCK_ONLY_HIGH, BLOCK_MEDIUM_AND_ABOVE or BLOCK_LOW_AND_ABOVE, for "
            "each category that can be adjusted; left out, Google decides"
        ),
    },
)
