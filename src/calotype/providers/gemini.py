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
from calotype.domain.outcomes import Done, Failed, SubmitOutcome, Unknown
from calotype.domain.wire import Upstream
from calotype.net.answers import LONGEST_WAIT
from calotype.net.bodies import Inline, json_body
from calotype.net.client import Answer
from calotype.providers.kind import Kind
from calotype.providers.line import Line, Tools, is_success
from calotype.providers.plain import Plain
from calotype.providers.port import Job, ReferenceImage
from calotype.providers.reading import counted, fields, objects, rounded, text
from calotype.providers.verdicts import ended, unfit

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


class Gemini(Plain):
    """Speaks it to one channel.

    Raises:
        ValueError: an option has a value that there is not.
        msgspec.ValidationError: the provider's file is not what is read here.

    """

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
            return unfit(f"requests may have {self._facts.request_bytes} bytes, not {body.length}")
        model = quote(job.upstream_model, safe="")
        path = f"{self._facts.api_version}/models/{model}:generateContent"
        answer = await self._line.create(path, body=body)
        if not isinstance(answer, Answer):
            return answer
        if not is_success(answer):
            return self._refused(answer)
        return self._read(job, answer)

    async def poll(self, job: Job, upstream_id: str) -> Unknown:  # noqa: ARG002 -- the port's
        """There is nothing to ask."""
        return Unknown("The upstream has no jobs that it could be asked about.")

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
        document = fields(answer.document)
        candidates = objects(document.get("candidates"))
        blocked = text(document.get("promptFeedback"), "blockReason")
        if not candidates and not blocked:
            return Unknown("The upstream answered with neither an image nor a reason.")
        cost = self._cost(job, document)
        parts = [
            part
            for candidate in candidates
            for part in objects(fields(candidate.get("content")).get("parts"))
            if not part.get("thought")
        ]
        written = [data for part in parts if (data := text(part.get("inlineData"), "data"))]
        if written:
            image = answer.blob(written[-1])
            if image is not None:
                return Done((image,), cost)
            message = "The upstream's answer holds an image that is no base64."
            return Failed("upstream_malformed_response", message, cost_micro_usdc=cost)
        if blocked:
            word = self._facts.block_reasons.get(blocked, "policy")
            return ended(word, detail=self._line.said(answer, blocked), cost=cost)
        reason = text(candidates[0], "finishReason")
        word = self._facts.finish_reasons.get(reason, "failed")
        words = text(candidates[0], "finishMessage") or " ".join(
            text(part, "text") for part in parts
        )
        return ended(word, detail=self._line.said(answer, f"{reason} {words}"), cost=cost)

    def _refused(self, answer: Answer) -> SubmitOutcome:
        """By the most telling code that the table has; how long to wait may stand in the body."""
        error = fields(fields(answer.document).get("error"))
        details = objects(error.get("details"))
        codes = [text(detail, "reason") for detail in details]
        if any(self._is_spent(detail) for detail in details):
            codes.append(SPENT_QUOTA)
        codes.append(text(error, "status"))
        table = self._line.upstream.create
        code = next((each for each in codes if f"{answer.status} {each}" in table), "")
        if answer.retry_after is None:
            waits = (_seconds(text(detail, "retryDelay")) for detail in details)
            wait = next((each for each in waits if each is not None), None)
            answer = msgspec.structs.replace(answer, retry_after=wait)
        return self._line.refuse(answer, code=code, detail=text(error, "message"))

    def _is_spent(self, detail: Mapping[str, Any]) -> bool:
        names = [text(each, "quotaId") for each in objects(detail.get("violations"))]
        return any(part in name for name in names for part in self._facts.spent_quotas)

    def _cost(self, job: Job, document: Mapping[str, Any]) -> int | None:
        """By tokens; None for a model without prices, or where tokens are not told in full."""
        prices = self._facts.prices.get(job.model.id)
        usage = fields(document.get("usageMetadata"))
        prompt = counted(usage.get("promptTokenCount"))
        made = counted(usage.get("candidatesTokenCount", 0))
        thoughts = counted(usage.get("thoughtsTokenCount", 0))
        if prices is None or prompt is None or made is None or thoughts is None:
            return None
        kinds = objects(usage.get("candidatesTokensDetails"))
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
