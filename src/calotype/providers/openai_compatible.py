"""Servers that speak OpenAI's Images API, mostly one's own: LocalAI, vLLM-Omni and the like."""

from decimal import Decimal, InvalidOperation

from calotype.domain.channel import Channel
from calotype.domain.money import MAX_AMOUNT, MICRO
from calotype.domain.outcomes import ImageSource, SubmitOutcome
from calotype.domain.wire import Upstream
from calotype.net.client import Answer
from calotype.providers.images_api import ImagesApi
from calotype.providers.kind import Kind
from calotype.providers.line import Tools, bearer
from calotype.providers.port import Job
from calotype.providers.reading import rounded
from calotype.providers.verdicts import unfit


class OpenAICompatible(ImagesApi):
    """Speaks it to one channel.

    It is not free unless the channel says so: a server may pass the request on to somebody who is
    paid, whether it wants a credential or not.
    """

    def __init__(self, channel: Channel, upstream: Upstream, tools: Tools) -> None:
        super().__init__(channel, upstream, tools, headers=bearer(channel))
        self._commands = tuple(upstream.protocol.get("prompt_commands", ()))
        self._cost_header = str(upstream.protocol.get("cost_header", ""))

    async def submit(self, job: Job) -> SubmitOutcome:
        """Send the request, unless its prompt would be taken for commands to the server."""
        prompt = job.request.prompt.casefold()
        for command in self._commands:
            if command in prompt:
                return unfit(f"the server takes '{command}' in a prompt for a command")
        return await super().submit(job)

    def _located(self, url: str) -> ImageSource:
        """An image at the server itself may want the credential, and may be named by its path."""
        try:
            whole = self._line.joined(url)
        except ValueError:
            return self._line.result(url)
        return self._line.own_result(whole) if self._line.owns(whole) else self._line.result(whole)

    def _cost(self, job: Job, answer: Answer) -> int | None:  # noqa: ARG002 -- the family's
        try:
            usd = Decimal(answer.headers.get(self._cost_header, "").strip())
        except InvalidOperation:
            return None
        return rounded(usd * MICRO) if usd.is_finite() and 0 <= usd <= MAX_AMOUNT else None


KIND = Kind(make=OpenAICompatible, needs_key=False)
