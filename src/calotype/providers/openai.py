"""OpenAI's Images API, at its maker."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final

import msgspec

from calotype.domain.channel import Channel
from calotype.domain.wire import Upstream
from calotype.net.client import Answer
from calotype.providers.images_api import ImagesApi, is_last
from calotype.providers.kind import Kind
from calotype.providers.line import Tools, bearer
from calotype.providers.port import Job
from calotype.providers.reading import counted, fields, rounded

QUALITY: Final = "quality"
PARTIAL_IMAGES: Final = "partial_images"
OPTIONS: Final = {
    QUALITY: "low, medium, high, auto, and for the 2.5 family xhigh, max; instead of medium",
    PARTIAL_IMAGES: (
        "1 to 3 shows progress by that many drafts of the image, each of which costs about 100 "
        "more output tokens; 0, the default, shows none and costs none"
    ),
}
_CHOICES: Final = {
    QUALITY: ("low", "medium", "high", "auto", "xhigh", "max"),
    PARTIAL_IMAGES: ("0", "1", "2", "3"),
}
_PARTIAL: Final = ("image_generation.partial_image", "image_edit.partial_image")


class Prices(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Micro-USD that a token of a model costs."""

    text_in: float
    image_in: float
    out: float


class OpenAI(ImagesApi):
    """Speaks it to one channel.

    Raises:
        ValueError: an option has a value that there is not.
        msgspec.ValidationError: the prices in the file are none.

    """

    def __init__(
        self,
        channel: Channel,
        upstream: Upstream,
        tools: Tools,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        if headers is None:
            headers = bearer(channel) | _account(channel)
        super().__init__(channel, upstream, tools, headers=headers)
        for name, choices in _CHOICES.items():
            if channel.options.get(name, choices[0]) not in choices:
                raise ValueError(
                    f"options.{name}: '{channel.options[name]}' is not known; write one of "
                    f"{', '.join(choices)}"
                )
        self._quality = channel.options.get(QUALITY, "")
        prices = upstream.protocol.get("prices", {})
        self._prices = msgspec.convert(prices, dict[str, Prices], strict=False)
        self._partial_images = int(channel.options.get(PARTIAL_IMAGES, "0"))

    def _document(self, job: Job) -> dict[str, Any]:
        document = super()._document(job)
        if self._quality:
            document[QUALITY] = self._quality
        if self._streams(job):
            document |= {"stream": True, PARTIAL_IMAGES: self._partial_images}
        return document

    def _streams(self, job: Job) -> bool:
        """A stream tells of one image; several come in one answer."""
        return self._partial_images > 0 and job.request.n == 1

    def _watch(self, job: Job) -> Callable[[Any], bool] | None:
        if not self._streams(job):
            return None

        def last(event: Any) -> bool:
            if not isinstance(event, dict):
                return False
            kind, index = event.get("type"), event.get("partial_image_index")
            if kind in _PARTIAL and isinstance(index, int) and 0 <= index < self._partial_images:
                job.report(100 * (index + 1) // (self._partial_images + 1))
            return is_last(event)

        return last

    def _cost(self, job: Job, answer: Answer) -> int | None:
        """By tokens; None for a model without prices, or where tokens are not told in full."""
        prices = self._prices.get(job.model.id)
        usage = answer.document.get("usage")
        details = fields(usage).get("input_tokens_details")
        if prices is None or not isinstance(details, dict):
            return None
        text, image = counted(details.get("text_tokens")), counted(details.get("image_tokens"))
        made = counted(usage.get("output_tokens"))
        if text is None or image is None or made is None:
            return None
        told = ((text, prices.text_in), (image, prices.image_in), (made, prices.out))
        return rounded(sum((tokens * Decimal(str(each)) for tokens, each in told), Decimal(0)))


def _account(channel: Channel) -> dict[str, str]:
    names = {"organization": "OpenAI-Organization", "project": "OpenAI-Project"}
    return {
        header: channel.options[name] for name, header in names.items() if name in channel.options
    }


KIND = Kind(
    make=OpenAI,
    options={
        **OPTIONS,
        "organization": "the organisation that is billed, where the key belongs to several",
        "project": "the project that is billed",
    },
)
