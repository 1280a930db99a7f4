"""Channels that the operator has switched by hand: every process learns of them by the database."""

from collections.abc import Callable

from calotype.services.routing import Router
from calotype.store.port import Store


class Switches:
    """Keeps the router of this process to what was switched."""

    def __init__(self, store: Store, router: Router) -> None:
        self._store = store
        self._router = router
        self._watchers: list[Callable[[], None]] = []

    def watch(self, callback: Callable[[], None]) -> None:
        """Have it called whenever other channels take new tasks than before."""
        self._watchers.append(callback)

    async def refresh(self) -> None:
        """Learn what was switched, by whichever process."""
        found = await self._store.operating.switches()
        if self._router.switch({one.channel_id: one.enabled for one in found}):
            for callback in self._watchers:
                callback()
