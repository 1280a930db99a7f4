"""What an operator does by hand; all of it stands in the audit."""

from typing import Final

from calotype.domain.channel import Channel
from calotype.domain.clock import Clock
from calotype.domain.errors import InvalidParameter, TaskNotFound, UnknownChannel
from calotype.domain.ids import decode
from calotype.domain.money import format_usd
from calotype.services.audit import Audit
from calotype.services.routing import Router
from calotype.services.switches import Switches
from calotype.store.operating import Resolution
from calotype.store.port import Store

_SWITCHED: Final = {
    True: "channel.enable",
    False: "channel.disable",
    None: "channel.as_configured",
}


class Operating:
    """The operator's hands.

    Every verb takes the actor that the audit is to name: ``audit.CLI`` or ``audit.CONSOLE``.
    """

    def __init__(
        self, store: Store, router: Router, *, audit: Audit, switches: Switches, clock: Clock
    ) -> None:
        self._store = store
        self._router = router
        self._audit = audit
        self._switches = switches
        self._clock = clock

    async def switch(self, actor: str, slug: str, *, enabled: bool | None) -> None:
        """Have a channel take new tasks or none, whatever the configuration says; None: as it says.

        This process goes by it at once, the others within ``health.FRESH_SECONDS``.

        Raises:
            errors.UnknownChannel: there is none of that slug.

        """
        channel = self._channel(slug)
        async with self._audit.action(actor, _SWITCHED[enabled], f"channel {slug}"):
            await self._store.operating.switch(
                channel.id, enabled=enabled, by=actor, now=self._clock()
            )
        await self._switches.refresh()

    async def reset(self, actor: str, slug: str) -> None:
        """Close the breakers of a channel.

        Raises:
            errors.UnknownChannel: there is none of that slug.

        """
        channel = self._channel(slug)
        async with self._audit.action(actor, "channel.reset", f"channel {slug}"):
            for health in await self._store.health():
                if health.channel_id == channel.id:
                    await self._store.clear_health(channel.id, health.model, now=self._clock())

    async def resolve(
        self,
        actor: str,
        task: str,
        number: int,
        *,
        resolution: Resolution,
        cost: int | None = None,
        note: str = "",
    ) -> None:
        """Settle an attempt of unknown outcome, once.

        Args:
            actor: for the audit.
            task: the task's id, ``task_…``.
            number: the attempt's, from 1.
            resolution: what the upstream's own records say.
            cost: micro-USDC that it charged, where that is known.
            note: for the audit.

        Raises:
            errors.TaskNotFound: there is no such task.
            errors.InvalidParameter: there is nothing to settle, or no such cost.

        """
        task_id = decode("task", task)
        if task_id is None or await self._store.task(task_id) is None:
            raise TaskNotFound(f"There is no task '{task}'.")
        if resolution == "free":
            if cost:
                raise InvalidParameter("What was free has no cost; leave it out.", param="cost")
            cost = 0
        if cost is not None and cost < 0:
            raise InvalidParameter("A cost is 0 or more.", param="cost")
        what = resolution if not cost else f"{resolution}, {format_usd(cost)} USDC"
        what = f"{what}; {note}" if note else what
        async with self._audit.action(actor, "attempt.resolve", f"{task}, attempt {number}", what):
            if not await self._store.operating.resolve(
                task_id, number, resolution=resolution, cost=cost, now=self._clock()
            ):
                raise InvalidParameter(
                    f"Attempt {number} of {task} is none of unknown outcome that is still to be "
                    "settled.",
                    param="number",
                )

    def _channel(self, slug: str) -> Channel:
        known = {channel.slug: channel for channel in self._router.channels}
        if slug not in known:
            raise UnknownChannel(f"There is no channel '{slug}'; there are {', '.join(known)}.")
        return known[slug]
