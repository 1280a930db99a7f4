"""Recraft."""

from decimal import Decimal

from calotype.domain.channel import Channel
from calotype.domain.wire import Upstream
from calotype.net.client import Answer
from calotype.providers.images_api import ImagesApi
from calotype.providers.kind import Kind
from calotype.providers.line import Tools, bearer
from calotype.providers.port import Job
from calotype.providers.reading import counted, rounded


class Recraft(ImagesApi):
    """Speaks it to one channel."""

    def __init__(self, channel: Channel, upstream: Upstream, tools: Tools) -> None:
        super().__init__(channel, upstream, tools, headers=bearer(channel))
        self._credit = Decimal(str(upstream.protocol["micro_usd_per_credit"]))

    def _cost(self, job: Job, answer: Answer) -> int | None:  # noqa: ARG002 -- the family's
        credits_spent = counted(answer.document.get("credits"))
        return None if credits_spent is None else rounded(credits_spent * self._credit)


KIND = Kind(make=Recraft)
