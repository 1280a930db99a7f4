"""The verbs that most upstreams have nothing for."""

from collections.abc import Mapping

from calotype.domain.outcomes import RecoverOutcome, Unknown
from calotype.providers.port import Job


class Plain:
    """A provider with ``submit`` and ``poll`` alone: the base of those that have no more."""

    free = False
    synchronous = False

    async def recover(self, _job: Job) -> RecoverOutcome:
        """The upstream cannot be asked by our own reference."""
        return Unknown("The upstream does not know a job by our reference.")

    async def cancel(self, _job: Job, _upstream_id: str) -> bool:
        """The upstream stops nothing."""
        return False

    def callback(self, _headers: Mapping[str, str], _body: bytes) -> str | None:
        """The upstream never calls."""
        return None

    async def close(self) -> None:
        """There is nothing of its own to let go of."""
